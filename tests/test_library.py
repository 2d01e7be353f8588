"""Adapters by name, in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorax.errors import UnknownFormat
from lorax.library import Library
from lorax.safefile import write_safetensors


def test_a_deleted_file_is_no_entry(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_safetensors(tmp_path / f"{name}.safetensors", {}, {})
    library = Library([tmp_path])
    assert library.find("one").path == tmp_path / "one.safetensors"
    assert [e.name for e in library.entries()] == ["one", "other"]
    (tmp_path / "one.safetensors").unlink()
    assert [e.name for e in library.entries()] == ["other"]
    with pytest.raises(UnknownFormat, match="no adapter is called 'one'"):
        library.find("one")
