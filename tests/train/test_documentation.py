"""The example of docs/training.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    names: dict[str, torch.Tensor] = {}
    exec(code[0], names)
    assert float(names["loss"].detach()) < 0.97 * float(names["base_loss"].detach())
    assert (tmp_path / "small.safetensors").is_file()
