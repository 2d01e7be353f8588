"""The service behind a switch: once per work, found again, and every refusal in one line."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lorax import Cancelled, LoraxError, open_tensors, read_adapter
from lorax.errors import NotTransferable, SourceNeeded, UnknownFormat
from lorax.fileindex import FileIndex
from lorax.hosts.base import KnownBase, RetargetOptions, Wish
from lorax.retarget import Folders, Retargeter, service
from tests.families import Family, write_lora

PLAIN = RetargetOptions()


class Shop:
    """A service over a family, with a count of what it really computed."""

    def __init__(
        self, folder: Path, family: Family, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = ("source", "fine", "other")
    ) -> None:
        self.family, self.folder = family, folder
        self.adapters = folder / "adapters"
        self.adapters.mkdir(exist_ok=True)
        self.names = "source", "fine", "other"
        self.worked: list[str] = []
        self.during = lambda: None
        real = service.work

        def counted(job: Any, *rest: Any) -> Any:
            self.worked.append(job.adapter.stem)
            self.during()
            return real(job, *rest)

        monkeypatch.setattr(service, "work", counted)
        self.open()

    def open(self) -> None:
        bases = lambda: [KnownBase(self.family[n], (f"{n}.safetensors",)) for n in self.names]  # noqa: E731
        self.service = Retargeter(Folders((self.adapters,), self.folder / "cache"), bases)

    def base(self, name: str) -> KnownBase:
        return KnownBase(self.family[name])

    def carry(self, base: str, options: RetargetOptions = PLAIN, **wish: Any) -> Any:
        return self.service.carry(Wish("plain", **wish), self.base(base), options)


@pytest.fixture
def shop(tmp_path: Path, sd1: Family, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path, sd1, monkeypatch)
    write_lora(made.adapters / "plain.safetensors", sd1)
    return made


def test_the_same_work_is_done_once(shop: Shop) -> None:
    first = shop.carry("fine")
    assert shop.carry("fine") == first
    assert shop.worked == ["plain"]
    shop.open()
    again = shop.carry("fine")
    assert (again.digest, again.summary, again.verdict) == (first.digest, first.summary, first.verdict)
    assert shop.worked == ["plain"], "it was found on disk"
    assert "copied from source (its name is in the adapter's file) to fine" in first.summary


def test_base_settings_and_content_are_in_the_digest(shop: Shop) -> None:
    digests = {shop.carry("fine").digest, shop.carry("source").digest, shop.carry("fine", method="project", k=4).digest}
    digests.add(shop.carry("fine", RetargetOptions(method="project")).digest)
    write_lora(shop.adapters / "plain.safetensors.new", shop.family, seed=9)
    (shop.adapters / "plain.safetensors.new").replace(shop.adapters / "plain.safetensors")
    digests.add(shop.carry("fine").digest)
    assert len(digests) == 5


def test_the_file_is_an_ordinary_lora_in_fp32(shop: Shop) -> None:
    carried = shop.carry("fine")
    with open_tensors(carried.path) as file:
        assert {info.dtype for info in file.tensors.values()} == {"F32"}
        assert {name.partition(".")[2] for name in file.tensors} == {"lora_up.weight", "lora_down.weight", "alpha"}
    assert read_adapter(carried.path).retargeted


def test_incomplete_openclip_attention_is_filled_with_zeros(tmp_path: Path, sdxl: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, sdxl, monkeypatch)
    write_lora(shop.adapters / "plain.safetensors", sdxl, wanted=lambda s: s.id.component == "te2" and s.role == "self_attn.v_proj")
    with open_tensors(shop.carry("fine").path) as file:
        q = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"
        assert float(file.read(q).abs().max()) == 0.0
        assert float(file.read(q.replace("q_proj", "v_proj")).abs().max()) > 0.0


def test_a_damaged_file_of_the_cache_is_made_again(shop: Shop) -> None:
    carried = shop.carry("fine")
    good = carried.path.read_bytes()
    carried.path.write_bytes(good[:100])
    shop.open()
    assert shop.carry("fine").path.read_bytes() == good
    assert len(shop.worked) == 2


def test_where_the_source_comes_from(shop: Shop) -> None:
    assert "from fine (source= says so)" in shop.carry("fine", source="fine").summary
    (shop.adapters / "plain.json").write_text('{"lorax source": "fine.safetensors"}')
    assert "'lorax source' in the file beside the adapter" in shop.carry("source").summary
    with pytest.raises(SourceNeeded, match=r"'sauce'.*Did you mean 'source'"):
        shop.carry("fine", source="sauce")


def test_unknown_source(shop: Shop) -> None:
    shop.names = ("fine", "other")
    carried = shop.carry("fine")
    assert carried.verdict == "unchecked"
    assert "which is not among the checkpoints: used on fine by name and shape, nothing could be checked" in carried.note
    assert "\n" not in carried.note
    with pytest.raises(SourceNeeded, match="source=<checkpoint>"):
        shop.carry("fine", RetargetOptions(unknown_source="refuse"))
    assert shop.carry("fine", RetargetOptions(sources=(("sd1", "other"),), method="copy", min_similarity=0.0), source="fine").note == ""


def test_refusals_are_one_line(shop: Shop, sdxl: Family) -> None:
    for error, wish, base in (
        (UnknownFormat, Wish("plane"), shop.base("fine")),
        (NotTransferable, Wish("plain"), shop.base("other")),
        (NotTransferable, Wish("plain"), KnownBase(sdxl["source"])),
    ):
        with pytest.raises(error) as said:
            shop.service.carry(wish, base, PLAIN)
        assert "\n" not in str(said.value)
        assert "--" not in str(said.value), "the command line's words are no use in a prompt"


def test_a_result_is_not_carried_further(shop: Shop) -> None:
    shutil.copyfile(shop.carry("fine").path, shop.adapters / "made.safetensors")
    shop.service.refresh()
    assert shop.service.carry(Wish("made"), shop.base("fine"), PLAIN).note == ""
    with pytest.raises(NotTransferable, match="made by a transfer, for fine"):
        shop.service.carry(Wish("made"), shop.base("source"), PLAIN)


def test_progress_can_cancel(shop: Shop) -> None:
    def stop(text: str, done: int, total: int) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        shop.service.carry(Wish("plain"), shop.base("fine"), PLAIN, stop)
    assert not list((shop.folder / "cache" / "transferred").glob("*"))
    assert shop.carry("fine").verdict == "should work"


def test_no_room_on_the_gpu(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real, devices = service.work, []

    def full(job: Any, *rest: Any) -> Any:
        devices.append(job.settings.device)
        if len(devices) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(job, *rest)

    monkeypatch.setattr(service, "work", full)
    assert "the GPU had no room, computed on the CPU" in shop.carry("fine").note
    assert devices[-1] == "cpu"


def test_autocast_of_the_host_changes_nothing(shop: Shop) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = shop.carry("fine", method="project", k=4).path.read_bytes()
    shutil.rmtree(shop.folder / "cache")
    shop.open()
    assert shop.carry("fine", method="project", k=4).path.read_bytes() == inside


def test_warming_and_a_picture_share_the_work(shop: Shop) -> None:
    begun, go = threading.Event(), threading.Event()

    def during() -> None:
        begun.set()
        assert go.wait(20)

    shop.during = during
    shop.service.warm([Wish("plain"), Wish("plain", unet=0, te=0)], shop.base("fine"), PLAIN)
    assert begun.wait(20)
    assert shop.service.warming
    threading.Timer(0.3, go.set).start()
    assert shop.carry("fine").verdict == "should work"
    assert shop.worked == ["plain"]
    wait_until(lambda: not shop.service.warming)


def test_warming_gives_way_and_comes_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorax.retarget.warming.PAUSE", 0.05)
    write_lora(shop.adapters / "second.safetensors", shop.family, seed=5)
    begun = threading.Event()
    real, order = service.work, []

    def slow(job: Any, spans: Any, relations: Any, progress: Any) -> Any:
        order.append(job.adapter.stem)
        if order == ["second"]:
            begun.set()
            wait_until(lambda: progress("working", 0, 1), forever=True)
        return real(job, spans, relations, progress)

    monkeypatch.setattr(service, "work", slow)
    shop.service.warm([Wish("second")], shop.base("fine"), PLAIN)
    assert begun.wait(20)
    shop.carry("fine")
    wait_until(lambda: not shop.service.warming)
    assert order == ["second", "plain", "second"]


def wait_until(done: Any, *, forever: bool = False) -> None:
    end = time.time() + 30
    while time.time() < end:
        if done() and not forever:
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_the_oldest_results_go_first(shop: Shop) -> None:
    shop.carry("fine")
    size = next((shop.folder / "cache" / "transferred").iterdir()).stat().st_size
    shop.service = Retargeter(
        Folders((shop.adapters,), shop.folder / "cache", size + size // 2), lambda: [KnownBase(shop.family["source"])]
    )
    kept = shop.carry("source")
    assert [p.name for p in (shop.folder / "cache" / "transferred").iterdir()] == [kept.path.name]


def test_the_index_sees_changes_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"one")
    index = FileIndex(tmp_path / "files.json")
    assert index.known(path) is None
    first = index.sha256(path)
    assert FileIndex(tmp_path / "files.json").known(path) == first
    path.write_bytes(b"three")
    assert index.sha256(path) != first
    (tmp_path / "files.json").write_text("{ broken")
    assert FileIndex(tmp_path / "files.json").known(path) is None
    with pytest.raises(LoraxError):
        index.sha256(tmp_path / "missing")
