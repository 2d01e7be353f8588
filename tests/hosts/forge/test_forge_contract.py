"""What the extension promises in Forge. One contract for the real WebUI and for the one that is made up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lorax.hosts.forge import native, placing
from tests.hosts.adapters import Adapters, write_random
from tests.hosts.fake_forge import FakeForgeBench
from tests.hosts.strangers import write_stranger


def test_the_model_is_loaded_when_it_is_needed(bench: Any) -> None:
    """The extension took its place, and the adapters were read, while no model was there (some hosts load it at once)."""
    assert (bench.unloaded == "FakeInitialModel") != (getattr(bench, "kind", "") in ("REFORGE", "CLASSIC"))
    assert "lorax" in bench.trace()["registered"]


@pytest.mark.parametrize("adapter", ["plain", "sigma"])
def test_the_picture_is_the_exported_files(bench: Any, adapter: str) -> None:
    pictures = []
    for checkpoint in ("a", "b", "a"):
        bench.switch(checkpoint)
        without = bench.picture("a cat").pixels
        ours = bench.picture(f"a cat <lorax:{adapter}:1>").pixels
        assert bench.picture("a cat").pixels == without
        exported = bench.picture(f"a cat <lora:{adapter}-for-{checkpoint}:1>").pixels
        assert ours == exported != without
        pictures.append(ours)
    assert pictures[0] == pictures[2] != pictures[1]


def test_a_switch_is_followed_without_another_word(bench: Any) -> None:
    """The same request right after the switch, with nothing of the other checkpoint in between."""
    expected: dict[str, str | None] = dict.fromkeys("ab")
    for checkpoint in "abab":
        bench.switch(checkpoint)
        made = bench.picture("a cat <lorax:plain:1>").pixels
        assert expected[checkpoint] in (None, made)
        expected[checkpoint] = made
    assert bench.picture("a cat <lora:plain-for-b:1>").pixels == expected["b"] != expected["a"]


def test_the_order_in_the_prompt_does_not_matter(bench: Any) -> None:
    for checkpoint in ("a", "b"):
        bench.switch(checkpoint)
        expected = bench.picture(f"a cat <lora:second-for-{checkpoint}:0.7><lora:plain-for-{checkpoint}:0.5>").pixels
        assert bench.picture(f"a cat <lora:second-for-{checkpoint}:0.7><lorax:plain:0.5>").pixels == expected
        assert bench.picture(f"a cat <lorax:plain:0.5><lora:second-for-{checkpoint}:0.7>").pixels == expected
        assert bench.picture(f"a cat <lora:second-for-{checkpoint}:0.7>").pixels != expected
        assert bench.picture("a cat <lorax:plain:0.5>").pixels == bench.picture(f"a cat <lora:plain-for-{checkpoint}:0.5>").pixels


def test_several_of_ours(bench: Any) -> None:
    expected = bench.picture("a cat <lora:plain-for-a:0.6><lora:second-for-a:0.4>").pixels
    assert bench.picture("a cat <lorax:plain:0.6><lorax:second:0.4>").pixels == expected
    assert bench.picture("a cat <lorax:plain:0.6>").pixels != expected


def test_strength_nought_is_no_adapter(bench: Any) -> None:
    plain = bench.picture("a cat")
    nought = bench.picture("a cat <lorax:plain:0>")
    assert nought.pixels == plain.pixels
    assert "LoraX" not in nought.infotext.partition("Steps:")[2]


def test_text_encoder_and_unet_apart(bench: Any) -> None:
    seen = {bench.picture("a cat").pixels}
    for unet, te in ((1, 0), (0, 1), (0.5, 1), (-0.5, -0.5)):
        exported = bench.picture(f"a cat <lora:plain-for-a:unet={unet}:te={te}>").pixels
        assert bench.picture(f"a cat <lorax:plain:{unet}:{te}>").pixels == exported
        assert bench.picture(f"a cat <lorax:plain:te={te}:unet={unet}>").pixels == exported
        assert exported not in seen
        seen.add(exported)


def test_pictures_without_networks(bench: Any) -> None:
    """Such pictures call no hook; what was on the model and in the caches before must not reach them, nor theirs the next."""
    without = bench.picture("a cat").pixels
    ours = bench.picture("a cat <lorax:plain:1>").pixels
    assert bench.picture("a cat <lorax:plain:1>", disable_extra_networks=True).pixels == without
    assert bench.picture("a cat <lorax:plain:1>").pixels == ours != without


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("<lorax:plian:1>", "Did you mean 'plain'?"),
        ("<lorax:corrupt:1>", "corrupt"),
        ("<lorax:stranger:1>", "sdxl"),
        ("<lorax:plain:strong>", "'strong' is no number"),
        ("<lorax:plain:1:source=nowhere>", "'nowhere'"),
        ("<lorax:plain-for-b:1>", "made by a transfer"),
    ],
)
def test_what_cannot_be_applied_is_said(bench: Any, tag: str, said: str) -> None:
    if tag == "<lorax:stranger:1>":
        write_stranger(bench.models / "Lora" / "stranger.safetensors")
    without = bench.picture("a cat").pixels
    bench.picture("a cat <lorax:second:1>")
    made = bench.picture(f"a cat {tag}")
    assert made.pixels == without
    assert said in made.infotext.partition("LoraX problems: ")[2]
    assert said in bench.log() or isinstance(bench, FakeForgeBench)


def test_one_that_fails_leaves_the_others(bench: Any) -> None:
    made = bench.picture("a cat <lorax:nope:1><lorax:plain:1>")
    assert made.pixels == bench.picture("a cat <lora:plain-for-a:1>").pixels
    assert "LoraX problems" in made.infotext


def test_the_same_name_with_other_content_is_merged_again(bench: Any) -> None:
    """The host merges again only where the identity of a patch differs; the tags stay the same, so encodings are kept too."""
    folder = bench.models / "Lora"
    shutil.copyfile(folder / "plain.safetensors", folder / "changing.safetensors")
    old = bench.picture("a cat <lorax:changing:1>").pixels
    assert old == bench.picture("a cat <lora:plain-for-a:1>").pixels
    bench.picture("a cat <lorax:changing:1>")
    write_random(folder / "changing.safetensors", bench.models / "Stable-diffusion" / "a.safetensors", seed=4)
    assert bench.picture("a cat <lorax:changing:1>").pixels == bench.picture("a cat <lora:second-for-a:1>").pixels != old
    (folder / "changing.safetensors").unlink()


@pytest.fixture
def constant(bench: Any) -> Iterator[Callable[[bool], None]]:
    """Makes the identity of our patches a constant, or what it was."""
    patch = pytest.MonkeyPatch()

    def make(on: bool) -> None:
        if not isinstance(bench, FakeForgeBench):
            bench.post(f"/probe/constant?on={on}")
        elif on:
            for module in (placing, native):
                patch.setattr(module, "identity", lambda carried: "lorax:constant")
        else:
            patch.undo()

    yield make
    make(False)


def test_a_constant_identity_would_be_stale(bench: Any, constant: Callable[[bool], None]) -> None:
    """The trap is there: what the test above relies on is the identity."""
    constant(True)
    first = bench.picture("a cat <lorax:plain:1:0>").pixels
    assert bench.picture("a cat <lorax:second:1:0>").pixels == first
    constant(False)
    bench.picture("a cat")
    assert bench.picture("a cat <lorax:second:1:0>").pixels != first


def test_a_constant_identity_would_be_stale_in_the_built_in(bench: Any, constant: Callable[[bool], None]) -> None:
    """The same for a LoRA-X file that ``<lora:…>`` names."""
    if getattr(bench, "kind", "FORGE") != "FORGE":
        pytest.skip("this host knows patches by the object, not by the file's name")
    bench.switch("b")
    constant(True)
    first = bench.picture("a cat <lora:sigma:1>").pixels
    assert bench.picture("a cat <lora:sigma:1>", override_settings={"lorax_rank": 4}).pixels == first
    constant(False)
    bench.picture("a cat")
    assert bench.picture("a cat <lora:sigma:1>", override_settings={"lorax_rank": 4}).pixels != first


def test_settings_decide_and_stand_in_the_infotext(bench: Any) -> None:
    bench.switch("b")
    exported = bench.picture("a cat <lora:plain-projected:1>").pixels
    copied = bench.picture("a cat <lorax:plain:1>")
    overridden = {"lorax_method": "always project, as in the paper", "lorax_rank": 8}
    ours = bench.picture("a cat <lorax:plain:1>", override_settings=overridden)
    assert ours.pixels == exported != copied.pixels, "the cond cache knows nothing of the settings"
    assert "LoraX rank: 8" in ours.infotext
    assert "LoraX hashes" in ours.infotext
    assert "LoraX rank" not in copied.infotext
    assert bench.picture("a cat <lorax:plain:1>").pixels == copied.pixels
    assert bench.picture("a cat <lorax:plain:1:method=project:rank=8>").pixels == exported


def test_pasting_finds_a_renamed_adapter(bench: Any) -> None:
    said = bench.picture("a cat <lorax:sigma:1>").infotext
    assert "<lorax:sigma:1>" in bench.paste(said.replace("sigma", "called-otherwise"))["prompt"]


def test_a_lorax_file_in_the_ordinary_folder(bench: Any) -> None:
    """``<lora:…>`` takes it, and it follows the checkpoint."""
    for checkpoint in ("a", "b", "a"):
        bench.switch(checkpoint)
        exported = bench.picture(f"a cat <lora:sigma-for-{checkpoint}:1>").pixels
        assert bench.picture("a cat <lora:sigma:1>").pixels == exported
        expected = bench.picture(f"a cat <lora:second-for-{checkpoint}:0.5><lora:sigma-for-{checkpoint}:0.7>").pixels
        assert bench.picture("a cat <lora:second-for-" + checkpoint + ":0.5><lora:sigma:0.7>").pixels == expected
    bench.picture("a cat")


def test_a_lorax_file_that_changes_is_seen_by_the_built_in(bench: Any) -> None:
    """The built-in keeps its list by file names, and its files by their names."""
    folder = bench.models / "Lora"
    shutil.copyfile(folder / "sigma.safetensors", folder / "native.safetensors")
    bench.switch("b")
    first = bench.picture("a cat <lora:native:1>").pixels
    again = bench.picture("a cat <lora:native:1>", override_settings={"lorax_rank": 4}).pixels
    assert first == bench.picture("a cat <lorax:sigma:1>").pixels
    assert again == bench.picture("a cat <lorax:sigma:1:rank=4>").pixels != first
    assert bench.picture("a cat <lora:native:1>").pixels == first
    bench.picture("a cat")
    (folder / "native.safetensors").unlink()


@pytest.mark.parametrize("stored", ["float8-e4m3fn", "float8-e4m3fn (fp16 LoRA)"])
def test_low_bits_merged_and_at_run_time(bench: Any, stored: str) -> None:
    if getattr(bench, "kind", "") not in ("FORGE", "NEO"):
        pytest.skip("this host has no low bits, or takes them from its command line")
    try:
        bench.set(forge_unet_storage_dtype=stored)
        for checkpoint in ("b", "a"):
            bench.switch(checkpoint)
            without = bench.picture("a cat").pixels
            exported = bench.picture(f"a cat <lora:plain-for-{checkpoint}:1>").pixels
            assert bench.picture("a cat <lorax:plain:1>").pixels == exported != without
            assert bench.picture("a cat").pixels == without
        assert ("on_the_fly = True" in bench.log()) >= ("fp16" in stored)
    finally:
        bench.set(forge_unet_storage_dtype="Automatic")
        bench.switch("b")
        bench.picture("a cat")


def test_text_encoder_from_another_file(bench: Any) -> None:
    if getattr(bench, "kind", "") in ("REFORGE", "CLASSIC"):
        pytest.skip("this host takes text encoders from checkpoints alone")
    if "split" not in bench.checkpoints:
        pytest.skip("the bench has no checkpoint without its text encoder (tests/hosts/test_forge_parts.py has)")
    write_random(bench.models / "Lora" / "deeper.safetensors", bench.models / "Stable-diffusion" / "deep.safetensors", seed=7)
    Adapters(bench).export("deeper", "deep", "deep")
    bench.switch("deep")
    whole = [bench.picture(f"a cat <lorax:deeper:{strengths}>").pixels for strengths in ("1", "0:1")]
    assert whole[0] == bench.picture("a cat <lora:deeper-for-deep:1>").pixels
    assert len({*whole, bench.picture("a cat").pixels}) == 3
    try:
        bench.set(forge_additional_modules=["clip.safetensors"])
        bench.switch("split")
        assert [bench.picture(f"a cat <lorax:deeper:{strengths}>").pixels for strengths in ("1", "0:1")] == whole
        assert "the text encoder comes from" not in bench.log()
        bench.switch("deep")
        assert bench.picture("a cat <lorax:deeper:1>").pixels == whole[0]
        assert "the text encoder comes from clip.safetensors" in bench.log()
    finally:
        bench.set(forge_additional_modules=[])


def test_inner_passes(bench: Any) -> None:
    """Other extensions make pictures within a picture, with the scripts that they let through."""
    if isinstance(bench, FakeForgeBench):
        pytest.skip("the made-up host has no inner passes")

    def inner(outer: str, prompt: str, *scripts: str) -> tuple[str, str, list[str]]:
        bench.post("/probe/inner", {"prompt": prompt, "scripts": list(scripts)})
        picture = bench.picture(outer, n_iter=2).pixels
        made = bench.get("/probe/inner")
        return picture, made["pixels"], made["comments"]

    outer = bench.picture("a cat <lora:plain-for-a:1>", n_iter=2).pixels
    without = inner("a cat", "a dog")[1]
    exported = inner("a cat", "a dog <lora:plain-for-a:1>")[1]
    assert inner("a cat <lorax:plain:1>", "a dog")[:2] == (outer, without)
    left_out = inner("a cat <lorax:plain:1>", "a dog <lorax:plain:1>")
    assert left_out[:2] == (outer, without)
    assert "lorax_extension" in " ".join(left_out[2])
    let_through = inner("a cat <lorax:plain:1>", "a dog <lorax:plain:1>", "lorax_extension")
    assert let_through == (outer, exported, [])
    assert exported != without


def test_status_and_version(bench: Any) -> None:
    if isinstance(bench, FakeForgeBench):
        pytest.skip("the made-up host has no server")
    assert bench.get("/lorax/v1/version")["usable"] is True
    bench.picture("a cat <lorax:plain:1>")
    status = bench.get("/lorax/v1/status")
    assert status["checkpoint"] == "a"
    assert "same base" in status["applied"]["plain"]["summary"]
    report = bench.post("/lorax/v1/transfer", {"adapter": "plain", "target": "b.safetensors", "dtype": "fp32", "output": "made"})
    assert report["verdict"] == "should work"
    bench.switch("b")
    shutil.copyfile(bench.models / "Lorax" / "made.safetensors", bench.models / "Lora" / "made-copy.safetensors")
    assert bench.picture("a cat <lora:made-copy:1>").pixels == bench.picture("a cat <lora:plain-for-b:1>").pixels
    assert "LoraX problems" not in bench.picture("a cat <lorax:made:1>").infotext
