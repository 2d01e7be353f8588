"""Calls of a real sd-scripts.

LORAX_SD_SCRIPTS names its folder, LORAX_SD_SCRIPTS_PYTHON the interpreter that has its packages (this one by default).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from converter.samples import Widths, relative, sample_checkpoint
from lorax.archs import by_name
from lorax.safefile import write_safetensors
from tests.train.pictures import VOCABULARY, write_pictures, write_tokenizer

FOLDER = os.environ.get("LORAX_SD_SCRIPTS")
PYTHON = os.environ.get("LORAX_SD_SCRIPTS_PYTHON", sys.executable)
ROOT = Path(__file__).parents[2]
NARROW = Path(__file__).with_name("narrow_sd_scripts.py")
REASON = "LORAX_SD_SCRIPTS names no sd-scripts folder"
WIDTHS = Widths(channels=(32, 64, 128, 128), text1=24, text2=32, vocabulary=VOCABULARY, size_embedding=256)


def prepare(work: Path, name: str) -> None:
    """``base.safetensors``, a fine-tune of it, pictures and tokenizers."""
    (work / "widths.json").write_text(json.dumps(asdict(WIDTHS)))
    base = sample_checkpoint(by_name(name), "single_file", WIDTHS, 0, torch.float16)
    write_safetensors(work / "bare.safetensors", base, {})
    write_safetensors(work / "fine.safetensors", relative(base, 0.1), {})
    write_pictures(work / "pictures" / "10_style")
    for tokenizer in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        write_tokenizer(work / "tokenizers" / tokenizer)
    call(work, "add-vae", "bare.safetensors", "base.safetensors")


def call(work: Path, script: str, *arguments: str, launcher: Sequence[str] = ()) -> str:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "LORAX_CACHE": str(work / "cache"), "PYTHONPATH": str(ROOT)}
    told = [PYTHON, *launcher, str(NARROW), str(FOLDER), str(work / "widths.json"), script, *arguments]
    done = subprocess.run(told, cwd=work, env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def train(work: Path, script: str, name: str, steps: int, rate: float, *more: str, launcher: Sequence[str] = ()) -> float:
    """The average loss that sd-scripts prints at the end. launcher: what the interpreter runs in place of the script itself."""
    said = [
        "--resolution=64",
        "--seed=1",
        "--train_batch_size=4",
        "--max_data_loader_n_workers=0",
        "--cache_latents",
        "--caption_extension=.txt",
        "--save_precision=fp16",
    ]
    said += ["--network_module=lorax.train.kohya", "--network_dim=24", "--tokenizer_cache_dir=tokenizers", "--train_data_dir=pictures"]
    said += ["--pretrained_model_name_or_path=base.safetensors", "--output_dir=out", f"--output_name={name}", "--save_model_as=safetensors"]
    printed = call(work, script, *said, f"--max_train_steps={steps}", f"--learning_rate={rate}", *more, launcher=launcher)
    return float(re.findall(r"avr_loss=([0-9.e-]+)", printed)[-1])
