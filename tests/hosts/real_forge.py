"""A real Forge or one of its relatives for the contract, from environment variables; nothing of them is in this repository.

``LORAX_FORGE``          folder of Forge (with launch.py); ``LORAX_REFORGE``, ``LORAX_CLASSIC`` and ``LORAX_NEO`` of its relatives
``LORAX_FORGE_PYTHON``   the interpreter with its packages (default: its own venv, else this one); ``LORAX_REFORGE_PYTHON``…
``LORAX_FORGE_MODELS``   for all of them, folder with the checkpoints a and b, where b is a relative of a; SD1's width and text
                         encoder, few blocks; perhaps also deep, with two blocks a level, by which Forge tells whose text encoder a
                         separate file is
``LORAX_FORGE_DATA``     where data folders are made (default: the system's temporary folder)

Other variables reach the WebUI as they are; pictures depend on ``OMP_NUM_THREADS``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from converter.samples import Widths, diffusers_config
from lorax.checkpoint import open_checkpoint
from lorax.layers import Component, LayerId
from tests.hosts.bench import Picture
from tests.hosts.real_a1111 import PROBE, ROOT, RealA1111

FLAGS = (
    "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check --skip-python-version-check --api --no-hashing "
    "--disable-console-progressbars --server-name 127.0.0.1"
)
OWN_FLAGS = {
    "FORGE": "--always-cpu --no-download-sd-model --do-not-download-clip",
    "REFORGE": "--always-cpu --no-download-sd-model --do-not-download-clip",
    "CLASSIC": "--always-cpu --no-download-sd-model",
    "NEO": "--cpu",
}
"""By the name in the variables."""


def why_not(kind: str = "FORGE") -> str:
    """Why this one cannot be started, or an empty string."""
    for name in (f"LORAX_{kind}", "LORAX_FORGE_MODELS"):
        if not os.environ.get(name):
            return f"{name} is not set: see tests/hosts/real_forge.py"
    return ""


def sd1_config(kind: str = "FORGE") -> Path:
    """The diffusers folder, without weights, that it builds SD1 by."""
    return Path(os.environ[f"LORAX_{kind}"]) / "backend" / "huggingface" / "runwayml" / "stable-diffusion-v1-5"


def unet_config(checkpoint: Path, sample_size: int) -> dict[str, Any]:
    """How diffusers builds the UNet of a checkpoint of SD1's width, by its own blocks. sample_size: the side of its latents."""
    with open_checkpoint(checkpoint) as base:
        assert base.arch.unet is not None
        firsts = [LayerId(Component.UNET, f"down_blocks.{i}.resnets.0.conv1") for i in range(len(base.arch.unet.down))]
        widths = Widths(channels=tuple(base.layers[i].out_features for i in firsts), text1=768, text2=768, heads=8, vocabulary=49408)
        return {**diffusers_config(base.arch, widths), "attention_head_dim": 8, "sample_size": sample_size}


class RealForge(RealA1111):
    """A Forge of its own process and data folder; it is asked in the same way as AUTOMATIC1111's WebUI."""

    data = "LORAX_FORGE_DATA"

    def __init__(self, kind: str = "FORGE", **options: Any) -> None:
        self.kind = kind
        super().__init__(**options)

    def picture(self, prompt: str, **fields: Any) -> Picture:
        """In fewer steps than the tests of AUTOMATIC1111's WebUI, for the models here are larger."""
        return super().picture(prompt, **{"steps": 2, **fields})

    def _fill(self, config: dict[str, Any], extension: bool) -> None:
        for name in ("Stable-diffusion", "Lora", "Lorax", "VAE", "text_encoder"):
            (self.models / name).mkdir(parents=True)
        for path in Path(os.environ["LORAX_FORGE_MODELS"]).iterdir():
            if path.suffix == ".safetensors":
                (self.models / "Stable-diffusion" / path.name).symlink_to(path)
        self._split(self.models / "Stable-diffusion")
        extensions = self.folder / "extensions"
        extensions.mkdir()
        (extensions / "a-probe").symlink_to(PROBE.with_name("forge_probe_extension"))
        if extension:
            (extensions / "lorax").symlink_to(ROOT)
        (self.folder / "config.json").write_text(json.dumps(config | self._version()))

    def _version(self) -> dict[str, str]:
        """Neo waits for a key press where its settings do not say that they are of its version."""
        own = Path(os.environ[f"LORAX_{self.kind}"]) / "modules" / "launch_utils.py"
        said = re.search(r"""^VERSION_UID.*=\s*["'](.+)["']""", own.read_text(encoding="utf-8"), re.MULTILINE)
        return {"VERSION_UID": said[1]} if said else {}

    def _split(self, checkpoints: Path) -> None:
        """``split`` is deep, with its text encoder in a file of its own, clip.safetensors; vae.safetensors is its VAE alone."""
        if not (checkpoints / "deep.safetensors").exists():
            return
        tensors, prefix = load_file(checkpoints / "deep.safetensors"), "cond_stage_model.transformer."
        text = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
        save_file(tensors, checkpoints / "split.safetensors")
        save_file(text, self.models / "text_encoder" / "clip.safetensors")
        prefix = "first_stage_model."
        vae = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        save_file(vae, self.models / "VAE" / "vae.safetensors")

    def _start(self, page: bool, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        webui = Path(os.environ[f"LORAX_{self.kind}"])
        own = webui / "venv" / "bin" / "python"
        python = os.environ.get(f"LORAX_{self.kind}_PYTHON") or (str(own) if own.is_file() else sys.executable)
        command = [
            python,
            "launch.py",
            *FLAGS.split(),
            *OWN_FLAGS[self.kind].split(),
            "--port",
            str(self.port),
            "--data-dir",
            str(self.folder),
        ]
        command += ["--gradio-allowed-path", str(webui), *flags]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
        environment.update(LORAX_CACHE=str(self.folder / "lorax-cache"), CUDA_VISIBLE_DEVICES="")
        environment.pop("COMMANDLINE_ARGS", None)
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command if page else [*command, "--nowebui"],
                cwd=webui,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
