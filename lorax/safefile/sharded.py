"""A set of shard files with its ``*.index.json``, seen as one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from torch import Tensor

from lorax.errors import FileError, MalformedFile, one_line
from lorax.header import TensorInfo
from lorax.safefile.open import open_tensors
from lorax.safefile.read import Rows, TensorFile, find_tensor, open_binary


class ShardedFile:
    """The shards of one index, opened lazily for data but all checked for the tensors that they promise."""

    def __init__(self, path: Path, shards: Mapping[str, TensorFile], places: Mapping[str, str]) -> None:
        self.path = path
        self._shards = shards
        self._places = places
        self.metadata: Mapping[str, str] = {k: v for shard in shards.values() for k, v in shard.metadata.items()}
        self.tensors: Mapping[str, TensorInfo] = {name: shards[place].tensors[name] for name, place in places.items()}
        self.ignored = tuple(f"{place}: {name}" for place, shard in shards.items() for name in _unlisted(shard, place, places))

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        find_tensor(self.path, self.tensors, name)
        return self._shards[self._places[name]].read(name, rows)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()

    def __enter__(self) -> ShardedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unlisted(shard: TensorFile, place: str, places: Mapping[str, str]) -> list[str]:
    return [*(name for name in shard.tensors if places.get(name) != place), *shard.ignored]


def open_sharded(index: Path) -> TensorFile:
    """Open ``*.safetensors.index.json`` or ``*.bin.index.json``; the shards lie in the index's own folder.

    Raises as `open_tensors`, and MalformedFile for an index that points elsewhere or promises what its shards lack.
    """
    index = Path(index)
    places = _read_index(index)
    shards: dict[str, TensorFile] = {}
    try:
        for place in dict.fromkeys(places.values()):
            if not (index.parent / place).exists():
                raise FileError(one_line(f"'{index}' needs '{place}' in the same folder, which is not there; download it too."))
            shards[place] = open_tensors(index.parent / place)
        for name, place in places.items():
            if name not in shards[place].tensors:
                raise MalformedFile(one_line(f"'{index}' promises tensor '{name}' in '{place}', which does not have it."))
        return ShardedFile(index, shards, places)
    except BaseException:
        for shard in shards.values():
            shard.close()
        raise


def _read_index(index: Path) -> dict[str, str]:
    with open_binary(index) as file:
        text = file.read()
    try:
        content: Any = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedFile(one_line(f"'{index}' is not JSON; a shard index was expected.")) from None
    places = cast("dict[str, Any]", content).get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(p, str) for p in places.values()):
        raise MalformedFile(one_line(f"'{index}' has no 'weight_map' of tensor names to file names; a shard index was expected."))
    for place in set(places.values()):
        if place in ("", ".", "..") or PurePosixPath(place).name != place or PureWindowsPath(place).name != place:
            raise MalformedFile(one_line(f"'{index}' points to '{place}'; shards must lie in its own folder."))
    return cast("dict[str, str]", places)
