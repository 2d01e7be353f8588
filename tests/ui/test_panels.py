"""What the panels do, without a page: names in, HTML and files out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lorax import open_tensors
from lorax.errors import Cancelled, LoraxError
from lorax.transfer.types import no_progress
from lorax.ui import inspecting
from lorax.ui.batching import carry_all
from lorax.ui.choices import AUTO, METHODS, UNKNOWN, Options, options_from
from lorax.ui.comparing import compare
from lorax.ui.distilling import distil
from lorax.ui.downloads import downloadable
from lorax.ui.transferring import Transfers
from tests.ui.places import MARKUP, Folders

BASE = [next(iter(METHODS)), 0, 0, -1, 1.0, "", "", "kohya", "fp16", False, False, "out"]


def options(**changed: object) -> Options:
    names = ("method", "rank", "out_rank", "gate", "strength", "only", "skip", "format", "dtype", "overwrite", "force", "folder")
    return options_from(**{**dict(zip(names, BASE, strict=True)), **changed}, device="cpu")  # type: ignore[arg-type]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_a_preview_says_what_would_happen_and_writes_nothing(folders: Folders) -> None:
    views = list(Transfers(folders.place).preview("style", AUTO, ["fine.safetensors", "pruned.safetensors"], options(), no_progress))
    said = words(views[-1])
    assert "Source found: source.safetensors (its hash is in the adapter's file)" in said
    assert re.search(r"style: source → fine Should work", said)
    assert re.search(r"style: source → pruned (Weak|Should work)", said)
    assert "its block has no counterpart in the target" in said
    assert re.search(r"100 % energy kept|99\.\d % energy kept", said), "the first target keeps everything"
    assert len(views) == 4, "each target is shown once before its energy is known and once after"
    assert list(folders.out.iterdir()) == []


def test_a_preview_without_a_source_says_so(folders: Folders) -> None:
    *_, last = Transfers(folders.place).preview("stranger", AUTO, ["fine.safetensors"], options(), no_progress)
    assert "Its base was not found" in words(last)
    assert "Unchecked" in words(last)
    *_, known = Transfers(folders.place).preview("stranger", "source.safetensors", ["fine.safetensors"], options(), no_progress)
    assert "Should work" in words(known)


def test_a_refusal_is_a_line_in_the_page(folders: Folders) -> None:
    *_, preview = Transfers(folders.place).preview("style", AUTO, ["other.safetensors"], options(), no_progress)
    assert "Not transferable" in words(preview)
    *_, (view, files) = Transfers(folders.place).transfer("style", AUTO, ["other.safetensors"], options(), no_progress)
    assert "tick 'Go on where refused'" in words(view)
    assert "--" not in words(view)
    assert files == []


def test_a_transfer_writes_what_the_converter_writes(folders: Folders, tmp_path: Path) -> None:
    from converter.__main__ import main

    *_, (view, files) = Transfers(folders.place).transfer("style", AUTO, ["fine.safetensors"], options(), no_progress)
    assert files == [folders.out / "style-fine.safetensors"]
    assert "Written: style-fine.safetensors" in words(view)
    theirs = tmp_path / "style-fine.safetensors"
    paths = [str(folders.checkpoints / f"{name}.safetensors") for name in ("source", "fine")]
    command = ["transfer", str(folders.adapters / "style.safetensors"), "--source", paths[0], "--target", paths[1], "-o", str(theirs)]
    assert main([*command, "--device", "cpu"]) == 0
    assert theirs.read_bytes() == files[0].read_bytes()


def test_one_failure_does_not_stop_the_rest(folders: Folders) -> None:
    *_, (view, files) = Transfers(folders.place).transfer("style", AUTO, ["other.safetensors", "fine.safetensors"], options(), no_progress)
    assert [path.name for path in files] == ["style-fine.safetensors"]
    assert "Not done." in words(view)
    *_, (again, files) = Transfers(folders.place).transfer("style", AUTO, ["fine.safetensors"], options(), no_progress)
    assert "tick 'Overwrite existing files'" in words(again)
    assert files == []


def test_a_stop_leaves_nothing_half_written(folders: Folders) -> None:
    def stop_late(text: str, done: int, total: int) -> None:
        if "transferring" in text and done > 3:
            raise Cancelled("stopped")

    *_, (view, files) = Transfers(folders.place).transfer("style", AUTO, ["fine.safetensors", "pruned.safetensors"], options(), stop_late)
    assert "stopped" in view
    assert files == []
    assert list(folders.out.iterdir()) == []


def test_a_batch_is_resumed_and_a_failure_is_a_row(folders: Folders) -> None:
    transfers, targets = Transfers(folders.place), ["fine.safetensors", "other.safetensors"]
    *_, rows = carry_all(transfers, ["style", "stranger"], AUTO, targets, options(), True, no_progress)
    states = {(row.adapter, row.target): row.state for row in rows}
    assert states == {
        ("style", "fine"): "done",
        ("style", "other"): "refused",
        ("stranger", "fine"): "failed",
        ("stranger", "other"): "failed",
    }
    *_, rows = carry_all(transfers, ["style", "stranger"], "source.safetensors", targets[:1], options(), True, no_progress)
    assert {(row.adapter, row.state) for row in rows} == {("style", "kept"), ("stranger", "done")}


def test_two_bases_are_compared_in_pictures(folders: Folders) -> None:
    (view,) = compare(folders.place, ["source.safetensors", "pruned.safetensors"], False, no_progress)
    assert 'class="heat"' in view
    assert 'class="blocks"' in view
    assert "<title>unet.down_blocks" in view, "numbers on hover"
    assert "cost (ATC)" in words(view)


def test_several_bases_give_a_matrix_of_costs(folders: Folders) -> None:
    *_, view = compare(folders.place, ["source.safetensors", "fine.safetensors", "other.safetensors"], False, no_progress)
    costs = [float(a) for a in re.findall(r"(\d\.\d\d) / \d\.\d\d</td>", view)]
    assert len(costs) == 6
    assert costs[0] < costs[1], "the fine-tune is nearer to the source than the stranger"


def test_markup_in_metadata_is_text(folders: Folders) -> None:
    view = inspecting.inspect(folders.place, "adapter: style", False, no_progress)
    assert "<script" not in view
    assert "<img" not in view
    assert MARKUP.replace("<", "&lt;").replace(">", "&gt;") in view
    assert "What it was trained on" in view
    assert 'class="heat"' in view


def test_a_checkpoint_is_inspected(folders: Folders) -> None:
    view = inspecting.inspect(folders.place, "checkpoint: pruned.safetensors", True, no_progress)
    assert "a base model of the family sd1" in view.lower() or "A base model of the family sd1" in view
    assert re.search(r"[0-9a-f]{64}", view)


def test_downloads_are_kept_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (old,) = downloadable([tmp_path / "a.safetensors"])
    (other,) = downloadable([tmp_path / "a.safetensors"])
    assert [Path(path).read_bytes() for path in (old, other)] == [b"a", b"a"]
    os.utime(Path(old).parent, (1.0, 1.0))
    downloadable([tmp_path / "a.safetensors"])
    assert not Path(old).exists()
    assert Path(other).exists()
    assert (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("name", ["../out/x", "/etc/passwd", "nothing", ""])
def test_no_name_is_a_path(folders: Folders, name: str) -> None:
    place = folders.place
    for look in (place.adapter, place.base, place.folder, lambda n: inspecting.inspect(place, f"adapter: {n}", False, no_progress)):
        with pytest.raises(LoraxError, match=r"is called|choose an? \w+ first"):
            look(name)


@pytest.mark.parametrize(("field", "value"), [("rank", -3), ("rank", 2.5), ("out_rank", -1), ("gate", 1.5)])
def test_a_number_out_of_range_is_one_line(field: str, value: float) -> None:
    with pytest.raises(LoraxError, match="not"):
        options(**{field: value})


def test_fields_become_settings() -> None:
    made = options(method="copy: the plain control", rank=24, out_rank=8, gate=0.4, only="up_blocks, *attn2*", format="peft", force=True)
    assert (made.settings.method, made.settings.k, made.settings.out_rank, made.settings.min_similarity) == ("copy", 24, 8, 0.4)
    assert made.settings.only == ("up_blocks", "*attn2*")
    assert (made.format, made.settings.force, made.settings.components) == ("peft", True, None)


def test_the_result_is_an_adapter_for_its_target(folders: Folders) -> None:
    *_, (_, files) = Transfers(folders.place).transfer("style", UNKNOWN, ["fine.safetensors"], options(), no_progress)
    file = open_tensors(files[0])
    assert file.metadata["lorax.target_base"] == "fine"
    file.close()


def test_a_distillation_is_refused_before_any_training(folders: Folders) -> None:
    transfers = Transfers(folders.place)
    (folders.out / "style-fine-distilled.safetensors").write_bytes(b"mine")
    for adapter, steps, said in (("style", 0, "training steps"), ("stranger", 5, "base was not found"), ("style", 5, "exists")):
        with pytest.raises(LoraxError, match=said):
            list(distil(transfers, adapter, AUTO, "fine.safetensors", options(), steps, no_progress))
    assert (folders.out / "style-fine-distilled.safetensors").read_bytes() == b"mine"
