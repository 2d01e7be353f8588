"""Parts of the Forge seam, each against what the real host does there."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorax.errors import NotTransferable
from lorax.hosts import detect
from lorax.hosts.base import Carried, starting
from lorax.hosts.base.webui import forget_conds
from lorax.hosts.forge import encoders, models
from lorax.hosts.forge.placing import Part, Placer, identity, read_state
from lorax.safefile import write_safetensors
from tests.hosts.adapters import Adapters
from tests.hosts.fake_forge import FakeForgeBench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeForgeBench]:
    made = FakeForgeBench(tmp_path_factory.mktemp("forge"))
    try:
        Adapters(made).write()
        yield made
    finally:
        made.close()


def carried(bench: FakeForgeBench, name: str) -> Carried:
    path = bench.models / "Lora" / f"{name}-for-a.safetensors"
    return Carried(name, path, f"digest of {name}", "", "", "")


def loaded(bench: FakeForgeBench) -> Any:
    bench.switch("a")
    bench.picture("a cat")
    return bench.webui.model


def test_the_host_is_chosen_by_what_its_built_in_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = ModuleType("networks")
    monkeypatch.setitem(sys.modules, "networks", built_in)
    assert not detect.patches_models()
    built_in.load_lora_for_models = lambda: None  # type: ignore[attr-defined]
    assert detect.patches_models()
    monkeypatch.delitem(sys.modules, "networks")
    assert not detect.patches_models()


def test_the_pair_of_equal_requests_is_the_same(bench: FakeForgeBench) -> None:
    """Hosts that know patches by the object would merge again."""
    model, placer = loaded(bench), Placer()
    seen = []
    for name in ("plain", "second", "plain"):
        placer.place(bench.webui.networks, model, [Part(carried(bench, name), 1.0, 1.0)], 4)
        seen.append((model.forge_objects.unet, model.forge_objects.clip))
    assert seen[0] == seen[2] != seen[1]
    placer.withdraw()
    assert model.forge_objects.unet is model.forge_objects_original.unet
    assert model.forge_objects_after_applying_lora.clip is model.forge_objects_original.clip


def test_what_others_put_there_since_stays(bench: FakeForgeBench) -> None:
    model, placer = loaded(bench), Placer()
    placer.place(bench.webui.networks, model, [Part(carried(bench, "plain"), 1.0, 1.0)], 4)
    theirs = model.forge_objects.unet = model.forge_objects.unet.clone()
    placer.withdraw()
    assert model.forge_objects.unet is theirs
    model.forge_objects = model.forge_objects_original.shallow_copy()


def test_twice_counts_twice(bench: FakeForgeBench) -> None:
    once = bench.picture("a cat <lorax:plain:0.5>").pixels
    twice = bench.picture("a cat <lorax:plain:0.5><lorax:plain:0.5>").pixels
    assert twice not in (once, bench.picture("a cat").pixels)


def test_a_model_that_was_let_go_is_not_kept(bench: FakeForgeBench) -> None:
    model = loaded(bench)
    bench.picture("a cat <lorax:plain:1><lora:sigma:1>")
    seen = weakref.ref(model)
    del model
    bench.switch("b")
    bench.picture("a cat")
    gc.collect()
    assert seen() is None


def test_an_adapter_that_the_host_does_not_take_is_said(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(unet: Any, clip: Any, *rest: Any, **named: Any) -> tuple[Any, Any]:
        return unet, clip

    monkeypatch.setattr(bench.webui.networks, "load_lora_for_models", refuse)
    made = bench.picture("a cat <lorax:second:0.31>")
    assert "did not take the UNet part and the text-encoder part" in made.infotext


def test_no_tensors_are_never_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    write_safetensors(path, {}, {})
    with pytest.raises(NotTransferable, match="nothing of 'x' fits"):
        read_state(Carried("x", path, "d", "", "", ""))


def test_the_identity_holds_the_content(bench: FakeForgeBench) -> None:
    assert identity(carried(bench, "plain")) != identity(carried(bench, "second"))


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (torch.float16, True, False),
        (torch.float8_e4m3fn, True, True),
        (torch.float8_e4m3fn, False, False),
        ("gguf", True, True),
    ],
)
def test_online_mode_as_the_built_in_decides_it(monkeypatch: pytest.MonkeyPatch, stored: Any, wanted: bool, expected: bool) -> None:
    arguments = ModuleType("backend.args")
    arguments.dynamic_args = {"online_lora": wanted}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "backend.args", arguments)
    model = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model=SimpleNamespace(storage_dtype=stored))))

    def with_mode(unet: Any, clip: Any, sd: Any, w_unet: float, w_te: float, filename: str = "", online_mode: bool = False) -> None: ...
    def without(unet: Any, clip: Any, sd: Any, w_unet: float, w_te: float, filename: str = "") -> None: ...

    def asking(model: Any) -> Any:
        return model.storage_dtype

    def not_asking() -> None: ...

    forge = SimpleNamespace(load_lora_for_models=with_mode, load_networks=asking)
    neo = SimpleNamespace(load_lora_for_models=with_mode, load_networks=not_asking)
    assert models.how_to_load(forge, model) == {"online_mode": expected}
    assert models.how_to_load(neo, model) == {"online_mode": wanted}
    assert models.how_to_load(SimpleNamespace(load_lora_for_models=without), model) == {}


def test_weights_that_were_swapped_in_place(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model says a, its weights are b's: so does what stands for the same adapter, until the host has put a's back."""
    model = loaded(bench)
    p = SimpleNamespace(refiner_checkpoint_info=bench.webui.info("b.safetensors"))
    models.picture_begins()
    assert models.base_of(model, p).name == "a"
    sampling = ModuleType("modules.sd_samplers_common")
    sampling.ORIGINAL_CHECKPOINT = "a.safetensors"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules.sd_samplers_common", sampling)
    assert models.base_of(model).name == "a", "who asks from elsewhere does not know the refiner"
    assert models.base_of(model, p).name == "b"
    assert models.base_of(model).name == "b"
    sampling.ORIGINAL_CHECKPOINT = None  # type: ignore[attr-defined]
    assert models.base_of(model, p).name == "a"


def test_a_mark_that_stays_is_of_one_model(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neo forgets to put the weights back where nothing of its refiner is shown; after a reload there is nothing to put back."""
    sampling = ModuleType("modules.sd_samplers_common")
    sampling.ORIGINAL_CHECKPOINT = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules.sd_samplers_common", sampling)
    model, p = loaded(bench), SimpleNamespace(refiner_checkpoint_info=bench.webui.info("b.safetensors"))
    models.picture_begins()
    sampling.ORIGINAL_CHECKPOINT = "a.safetensors"  # type: ignore[attr-defined]
    assert models.base_of(model, p).name == "b"
    models.picture_begins()
    assert models.base_of(model).name == "b"
    bench.switch("b")
    bench.picture("a cat")
    again = loaded(bench)
    assert again is not model
    assert models.base_of(again, p).name == "a"
    sampling.ORIGINAL_CHECKPOINT = None  # type: ignore[attr-defined]
    assert models.base_of(model).name == "a"


def test_the_wrapped_loader_shows_what_it_takes(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ModuleType("backend.args")
    arguments.dynamic_args = {"online_lora": True}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "backend.args", arguments)
    model = loaded(bench)
    assert models.how_to_load(bench.webui.networks, model) == {"online_mode": False}
    monkeypatch.setattr(model.forge_objects.unet.model, "storage_dtype", torch.float8_e4m3fn)
    assert models.how_to_load(bench.webui.networks, model) == {"online_mode": True}


def test_no_model_no_adapter(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in before the first picture, nothing after a load that failed."""
    for nothing in (SimpleNamespace(cond_stage_model=None), None):
        monkeypatch.setattr(bench.webui, "model", nothing)
        assert models.active_model() is None
        assert models.base_of(models.active_model()) is None


def test_a_choice_warms_what_is_in_use(bench: FakeForgeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert starting._started is not None
    seen: list[Any] = []
    monkeypatch.setattr(starting._started.service, "warm", lambda wishes, base, options: seen.append((wishes[0].name, base.name)))
    bench.switch("a")
    bench.picture("a cat <lorax:plain:1>")
    bench.switch("b")
    assert seen[-1] == ("plain", "b")
    bench.set(lorax_warm=False)
    bench.switch("a")
    bench.set(lorax_warm=True)
    assert len(seen) == 1 or seen[-1] == ("plain", "b")


def test_caches_keep_their_length(bench: FakeForgeBench) -> None:
    """Forge keeps three things for each prompt, AUTOMATIC1111's WebUI two."""
    p = SimpleNamespace(cached_c=[1, 2, 3], cached_uc=[1, 2])
    forget_conds(p)
    assert (p.cached_c, p.cached_uc) == ([None] * 3, [None] * 2)


def test_text_encoders_of_their_own_files(tmp_path: Path) -> None:
    """The checkpoint without its text encoder, and that in another file, are the same base."""
    made = FakeForgeBench(tmp_path)
    try:
        Adapters(made).write()
        expected = made.picture("a cat <lorax:plain:1>").pixels
        checkpoints = made.models / "Stable-diffusion"
        encoder = split(checkpoints / "a.safetensors", tmp_path)
        vae = tmp_path / "vae.safetensors"
        write_safetensors(vae, {"decoder.conv_in.weight": torch.ones(1)}, {})
        assert encoders.with_text_encoders((vae, encoder, tmp_path / "absent.gguf")) == (encoder,)
        made.webui.beside += [str(encoder)]
        made.webui.loaded_for = ""
        made.webui.model = None
        assert made.picture("a cat <lorax:plain:1>").pixels == expected
        assert models.base_of(made.webui.model).beside == (encoder,)
        made.webui.beside.clear()
        assert models.base_of(made.webui.model).beside == (encoder,), "what is chosen now is for the next load"
    finally:
        made.close()


def split(checkpoint: Path, folder: Path) -> Path:
    """The text encoder out of a checkpoint file into one of its own."""
    tensors = load_file(checkpoint)
    prefix = "cond_stage_model.transformer."
    text = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    write_safetensors(folder / "clip.safetensors", text, {})
    write_safetensors(checkpoint, {n: t for n, t in tensors.items() if not n.startswith(prefix)}, {}, overwrite=True)
    return folder / "clip.safetensors"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    made = FakeForgeBench(tmp_path)
    try:
        Adapters(made).write()
        before = made.picture("a cat").pixels
        model, load = made.webui.model, made.webui.networks.load_lora_for_models
        made.picture("a cat <lorax:plain:1><lora:sigma:1>")
        for callback in made.webui.callbacks["script_unloaded"]:
            callback()
        assert made.trace()["registered"] == ["lora"]
        assert made.webui.networks.load_lora_for_models is not load
        assert made.webui.choice.onchange is None
        made.webui.scripts.clear()
        assert made.picture("a cat").pixels == before
        assert made.trace()["patched"] == {"forge_objects_after_applying_lora": [], "forge_objects": []}
        assert made.webui.model is model
    finally:
        made.webui.close()
