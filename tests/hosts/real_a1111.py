"""A real WebUI for the contract, from environment variables; nothing of it is in this repository.

``LORAX_A1111``          its folder (with launch.py)
``LORAX_A1111_PYTHON``   the interpreter with its packages (default: its own venv, else this one)
``LORAX_A1111_MODELS``   folder with the checkpoints a, b (each with a .yaml beside it), same_a, same_b (the same weights without), and
                         perhaps xl_a and xl_b and those of a1111/test_a1111_layouts.py: small ones, a picture should take a second
``LORAX_A1111_DATA``     where data folders are made (default: the system's temporary folder)

Other variables reach the WebUI as they are (``HF_HOME``, ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` …).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hosts.bench import Picture, Refused

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe_extension"
FLAGS = (
    "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check --skip-python-version-check --no-half --use-cpu all --api "
    "--do-not-download-clip --no-hashing --no-download-sd-model --disable-console-progressbars --server-name 127.0.0.1"
)
CONFIG = {"show_progress_type": "Approx cheap", "sd_model_checkpoint": "a.safetensors", "samples_save": False, "grid_save": False}


def why_not() -> str:
    """Why a real WebUI cannot be started, or an empty string."""
    for name in ("LORAX_A1111", "LORAX_A1111_MODELS"):
        if not os.environ.get(name):
            return f"{name} is not set: it names a real WebUI (tests/hosts/real_a1111.py)"
    return ""


class RealA1111:
    """A WebUI of its own process and data folder."""

    started = True
    kind = "A1111"
    data = "LORAX_A1111_DATA"

    def __init__(
        self,
        *,
        page: bool = False,
        flags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        extension: bool = True,
        auth: str = "",
    ) -> None:
        """page: with the page, without which the UI cannot be reloaded. auth: ``user:password`` for every request."""
        self.auth = auth
        self.folder = Path(tempfile.mkdtemp(prefix="lorax-a1111-", dir=os.environ.get(self.data)))
        self.models = self.folder / "models"
        self._fill(dict(CONFIG) | dict(config or {}), extension)
        self.checkpoints = tuple(sorted(p.stem for p in (self.models / "Stable-diffusion").glob("*.safetensors")))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = self.folder / "log.txt"
        self._process = self._start(page, flags)
        self._wait()

    def _fill(self, config: dict[str, Any], extension: bool) -> None:
        source = Path(os.environ["LORAX_A1111_MODELS"])
        for name in ("Stable-diffusion", "Lora", "Lorax"):
            (self.models / name).mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix in (".safetensors", ".yaml"):
                (self.models / "Stable-diffusion" / path.name).symlink_to(path)
        extensions = self.folder / "extensions"
        extensions.mkdir()
        (extensions / "a-probe").symlink_to(PROBE)
        if extension:
            (extensions / "lorax").symlink_to(ROOT)
        (self.folder / "config.json").write_text(json.dumps(config))

    def _start(self, page: bool, flags: Sequence[str]) -> subprocess.Popen[bytes]:
        webui = Path(os.environ["LORAX_A1111"])
        own = webui / "venv" / "bin" / "python"
        python = os.environ.get("LORAX_A1111_PYTHON") or (str(own) if own.is_file() else sys.executable)
        command = [python, "launch.py", *FLAGS.split(), "--port", str(self.port), "--data-dir", str(self.folder), *flags]
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

    def _wait(self) -> None:
        end = time.time() + 300
        while time.time() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"the WebUI ended with {self._process.returncode}:\n{self.log()[-3000:]}")
            try:
                if "Startup time:" in self.log():
                    self.get("/sdapi/v1/sd-models")
                    return
            except (OSError, Refused):
                pass
            time.sleep(0.5)
        raise TimeoutError(self.log()[-3000:])

    def get(self, path: str, **query: str) -> Any:
        return self._ask(urllib.request.Request(self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body or {}).encode(), {"Content-Type": "application/json"})
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        if self.auth:
            request.add_header("Authorization", "Basic " + base64.b64encode(self.auth.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from None

    def picture(self, prompt: str, **fields: Any) -> Picture:
        body = {"prompt": prompt, "width": 64, "height": 64, "steps": 4, "seed": 1, "cfg_scale": 5, "sampler_name": "Euler", **fields}
        answer = self.post("/sdapi/v1/img2img" if "init_images" in fields else "/sdapi/v1/txt2img", body)
        pngs = [base64.b64decode(i) for i in answer["images"]]
        self.last = answer["images"][0]
        return Picture("+".join(map(pixels, pngs)), json.loads(answer["info"])["infotexts"][0])

    def switch(self, checkpoint: str) -> None:
        self.set(sd_model_checkpoint=f"{checkpoint}.safetensors")

    def set(self, **options: Any) -> None:
        self.post("/sdapi/v1/options", options)

    def trace(self) -> Mapping[str, Any]:
        return self.get("/probe/trace")

    def paste(self, infotext: str) -> Mapping[str, Any]:
        return self.get("/probe/paste", infotext=infotext)

    def reload_ui(self) -> None:
        """Reload UI, and wait until it is there again."""
        before = self.log().count("Startup time:")
        self.post("/probe/reload")
        end = time.time() + 120
        while time.time() < end:
            if self.log().count("Startup time:") > before:
                return
            time.sleep(0.3)
        raise TimeoutError(self.log()[-3000:])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def pixels(png: bytes) -> str:
    """Hash of a PNG's picture data: the text in it says how it was made, which is not the question."""
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    return hashlib.sha256(zlib.decompress(data)).hexdigest()[:16]
