"""Calls of a real sd-scripts.

LORAX_SD_SCRIPTS names its folder, LORAX_SD_SCRIPTS_PYTHON the interpreter that has its packages (this one by default).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = os.environ.get("LORAX_SD_SCRIPTS")
PYTHON = os.environ.get("LORAX_SD_SCRIPTS_PYTHON", sys.executable)
ROOT = Path(__file__).parents[2]
NARROW = Path(__file__).with_name("narrow_sd_scripts.py")
REASON = "LORAX_SD_SCRIPTS names no sd-scripts folder"


def call(work: Path, script: str, *arguments: str) -> str:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "LORAX_CACHE": str(work / "cache"), "PYTHONPATH": str(ROOT)}
    told = [PYTHON, str(NARROW), str(FOLDER), str(work / "widths.json"), script, *arguments]
    done = subprocess.run(told, cwd=work, env={**os.environ, **quiet}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def train(work: Path, script: str, name: str, steps: int, rate: float, *more: str) -> float:
    """The average loss that sd-scripts prints at the end."""
    said = [
        "--resolution=64",
        "--seed=1",
        "--train_batch_size=4",
        "--max_data_loader_n_workers=0",
        "--cache_latents",
        "--save_precision=fp16",
    ]
    said += ["--network_module=lorax.train.kohya", "--network_dim=24", "--tokenizer_cache_dir=tokenizers", "--train_data_dir=pictures"]
    said += ["--pretrained_model_name_or_path=base.safetensors", "--output_dir=out", f"--output_name={name}", "--save_model_as=safetensors"]
    printed = call(work, script, *said, f"--max_train_steps={steps}", f"--learning_rate={rate}", *more)
    return float(re.findall(r"avr_loss=([0-9.e-]+)", printed)[-1])
