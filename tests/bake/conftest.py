from __future__ import annotations

from pathlib import Path

import pytest
from narrow import narrow_checkpoint

from lorax.safefile import write_safetensors


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    write_safetensors(path, narrow_checkpoint(), {"modelspec.title": "Base", "modelspec.hash_sha256": "0x00"})
    return path
