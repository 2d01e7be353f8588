"""The base that an adapter names is found by the best evidence, and hashes are computed only where they decide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import lorax.fileindex
from lorax.adapter import BaseHint
from lorax.catalog import Catalog, Match, plain_name

OFFSET = 0x100000


def put(path: Path, start: bytes, rest: bytes = b"") -> Path:
    """A file with `rest` at the place that the old hash looks at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start.ljust(OFFSET, b"\0") + rest)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def autov1(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[OFFSET : OFFSET + 0x10000]).hexdigest()[:8]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two fine-tunes that share the old hash, one that does not, and a diffusers folder."""
    put(tmp_path / "models/a.safetensors", b"first", b"shared")
    put(tmp_path / "models/more/b.safetensors", b"second", b"shared")
    put(tmp_path / "models/more/Sd_XL_1.0.CKPT", b"third", b"own")
    put(tmp_path / "models/folder/unet/diffusion_pytorch_model.safetensors", b"")
    return tmp_path / "models"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose sha256 was computed."""
    names: list[str] = []
    compute = lorax.fileindex.sha256_file

    def counting(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
        names.append(path.name)
        return compute(path, progress)

    monkeypatch.setattr(lorax.fileindex, "sha256_file", counting)
    return names


def test_scan_lists_files_and_folders_in_order(models: Path) -> None:
    found = [path.relative_to(models).as_posix() for path in Catalog.scan([models, models]).paths]
    assert found == ["a.safetensors", "folder", "more/Sd_XL_1.0.CKPT", "more/b.safetensors"]
    assert Catalog.scan([models / "none"]).paths == ()


def test_sha256_decides_among_files_of_one_old_hash(models: Path, hashed: list[str]) -> None:
    b = models / "more/b.safetensors"
    match = Catalog.scan([models]).lookup(BaseHint("other", sha256(b).upper(), autov1(b)))
    assert match == Match(b, "sha256")
    assert sorted(hashed) == ["a.safetensors", "b.safetensors"]


def test_the_named_file_is_hashed_first(models: Path, hashed: list[str]) -> None:
    b = models / "more/b.safetensors"
    assert Catalog.scan([models]).find(BaseHint("b.safetensors", sha256(b))) == b
    assert hashed == ["b.safetensors"]


def test_nothing_is_hashed_where_the_old_hash_excludes_all(models: Path, hashed: list[str]) -> None:
    assert Catalog.scan([models]).find(BaseHint("unknown", "0" * 64, "00000000")) is None
    assert hashed == []


def test_the_old_hash_alone(models: Path, hashed: list[str]) -> None:
    own = models / "more/Sd_XL_1.0.CKPT"
    assert Catalog.scan([models]).lookup(BaseHint(autov1=autov1(own))) == Match(own, "autov1")
    b = models / "more/b.safetensors"
    assert Catalog.scan([models]).lookup(BaseHint(name="b", autov1=autov1(b))) == Match(b, "autov1", others=1)
    assert hashed == []


@pytest.mark.parametrize("name", ["sd_xl_1.0", "SD_XL_1.0.safetensors", "C:\\models\\sd_xl_1.0.ckpt", "/data/x/Sd_XL_1.0.CKPT"])
def test_by_name_whatever_its_folder_suffix_and_case(name: str, models: Path) -> None:
    assert Catalog.scan([models]).lookup(BaseHint(name)) == Match(models / "more/Sd_XL_1.0.CKPT", "name")


def test_a_name_with_another_hash_is_a_guess_and_says_so(models: Path) -> None:
    match = Catalog.scan([models]).lookup(BaseHint("a", "0" * 64, "00000000"))
    assert match == Match(models / "a.safetensors", "name", contradicted=True)


def test_folders_are_found_by_name(models: Path) -> None:
    snapshot = models / "models--stabilityai--sdxl-base/snapshots/0123"
    put(snapshot / "unet/diffusion_pytorch_model.safetensors", b"")
    catalog = Catalog.scan([models])
    assert catalog.lookup(BaseHint("folder", "0" * 64)) == Match(models / "folder", "name")
    assert catalog.find(BaseHint("stabilityai/sdxl-base")) == snapshot


def test_an_empty_hint_finds_nothing(models: Path) -> None:
    assert Catalog.scan([models]).find(BaseHint()) is None


def test_the_index_spares_hashing_until_a_file_changes(models: Path, tmp_path: Path, hashed: list[str]) -> None:
    index, a = tmp_path / "new/index.json", models / "a.safetensors"
    hint = BaseHint(sha256=sha256(a), autov1=autov1(a))
    assert Catalog.scan([models], index).find(hint) == a
    assert hashed == ["a.safetensors"]
    assert Catalog.scan([models], index).find(hint) == a
    assert hashed == ["a.safetensors"]
    put(a, b"changed", b"shared")
    os.utime(a, ns=(1, 1))
    assert Catalog.scan([models], index).find(hint) is None
    assert sorted(hashed) == ["a.safetensors", "a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("text", ["", "{", "[[1]]", '{"version": 1, "files": 3}', "[" * 100_000])
def test_a_damaged_index_is_as_good_as_none(text: str, models: Path, tmp_path: Path) -> None:
    index, a = tmp_path / "index.json", models / "a.safetensors"
    index.write_text(text)
    assert Catalog.scan([models], index).find(BaseHint(sha256=sha256(a))) == a
    assert sha256(a) in index.read_text()


def test_an_unreadable_file_agrees_with_nothing(models: Path) -> None:
    a, b = models / "a.safetensors", models / "more/b.safetensors"
    catalog, hint = Catalog.scan([models]), BaseHint("a", sha256(b), autov1(b))
    a.unlink()
    assert catalog.find(hint) == b


def test_links_are_followed_once(models: Path, tmp_path: Path) -> None:
    link = models / "loop"
    try:
        link.symlink_to(models, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    (models / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    assert len(Catalog.scan([models]).paths) == 4


def test_progress_of_hashing(models: Path) -> None:
    said: list[tuple[str, int, int]] = []
    a = models / "a.safetensors"
    Catalog.scan([models], progress=lambda *told: said.append(told)).find(BaseHint("a", sha256(a)))
    assert said[-1] == ("reading a.safetensors", 1, 1)


def test_plain_names_keep_their_dots() -> None:
    assert plain_name("v1-5-pruned.emaonly") == "v1-5-pruned.emaonly"
    assert plain_name("Model.V2.safetensors") == "model.v2"
