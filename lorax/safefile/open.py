"""Telling files of tensors apart by what they contain, whatever their suffix."""

from __future__ import annotations

from pathlib import Path

from lorax.errors import MalformedFile, one_line
from lorax.header import MAX_HEADER
from lorax.safefile.gguf import MAGIC, GgufFile
from lorax.safefile.pickles import PickleFile
from lorax.safefile.read import SafetensorsFile, TensorFile, open_binary


def open_tensors(path: Path) -> TensorFile:
    """Open a file of tensors for what it is, whatever its suffix: safetensors, GGUF, or a pickle that holds tensors only.

    Raises FileError where it cannot be opened, MalformedFile where it is none of them, UnsafeFile for a pickle with more in it.
    """
    path = Path(path)
    with open_binary(path) as file:
        start = file.read(512)
    if (reason := _not_tensors(start)) is not None:
        raise MalformedFile(one_line(f"'{path}' {reason}."))
    if start.startswith(MAGIC):
        return GgufFile(path)
    return PickleFile(path) if is_pickle(start) else SafetensorsFile(path)


def is_pickle(start: bytes) -> bool:
    """A zip (torch ≥ 1.6) or a bare pickle stream of protocol 2 or later (older torch)."""
    if start[:4] == b"PK\x03\x04":
        return True
    header = int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] == b"{"
    return start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and not header


def _not_tensors(start: bytes) -> str | None:
    """Why a file that starts like this cannot hold tensors, for the usual accidents."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty; download or copy it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; download the real file (git lfs pull)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page, not a model; the download needs a login or another link"
    if (beginning := _as_text(start)) is not None:
        return f"is a text file, not a file of tensors; it begins {beginning[:40]!r}"
    return None


def _as_text(start: bytes) -> str | None:
    """The beginning of a text file, or None where there are bytes that no text has."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in start):
        return None
    try:
        return start.decode("utf-8")
    except UnicodeDecodeError as e:
        return start[: e.start].decode("utf-8") if e.start > len(start) - 4 else None
