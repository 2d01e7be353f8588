"""What the extension promises in AUTOMATIC1111's WebUI. One contract for the real WebUI and for the one that is made up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts.a1111.pairs import HIRES, PAIRS, base
from tests.hosts.bench import Picture


@pytest.mark.parametrize("adapter", ["plain", "sigma"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_picture_is_the_exported_files(bench: Any, adapter: str, first: str, second: str) -> None:
    pictures = []
    for checkpoint in (first, second, first):
        bench.switch(checkpoint)
        without = bench.picture("a cat").pixels
        ours = bench.picture(f"a cat <lorax:{adapter}:1>").pixels
        exported = bench.picture(f"a cat <lora:{adapter}-for-{base(checkpoint)}:1>").pixels
        assert ours == exported != without
        assert bench.picture("a cat").pixels == without
        pictures.append(ours)
    assert pictures[0] == pictures[2] != pictures[1]


def test_sdxl_with_incomplete_openclip_attention(bench: Any) -> None:
    if "xl_a" not in bench.checkpoints:
        pytest.skip("the bench has no SDXL pair")
    for checkpoint in ("xl_a", "xl_b", "xl_a"):
        bench.switch(checkpoint)
        without = bench.picture("a cat").pixels
        ours = bench.picture("a cat <lorax:xl:1:0>").pixels
        assert ours == bench.picture(f"a cat <lora:xl-for-{checkpoint}:unet=1:te=0>").pixels != without
        whole = bench.picture("a cat <lorax:xl:0:1>").pixels
        assert whole not in (without, bench.picture(f"a cat <lora:xl-for-{checkpoint}:unet=0:te=1>").pixels), (
            "the host drops q-less attention"
        )
        assert bench.picture("a cat").pixels == without


def test_biases_and_norms(bench: Any) -> None:
    for checkpoint, ours, theirs in (("a", "1", "1"), ("b", "0.5:-0.5", "unet=0.5:te=-0.5")):
        bench.switch(checkpoint)
        made = bench.picture(f"a cat <lorax:offset-both:{ours}>")
        assert made.pixels == bench.picture(f"a cat <lora:offset-both-for-{checkpoint}:{theirs}>").pixels
        assert made.pixels != bench.picture(f"a cat <lorax:plain:{ours}>").pixels
        assert "LoraX problems" not in made.infotext


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


def test_per_request_checkpoint(bench: Any) -> None:
    first = bench.picture("a cat <lorax:plain:1>").pixels
    bench.switch("b")
    expected = bench.picture("a cat <lora:plain-for-b:1>").pixels
    bench.switch("a")
    for name in ("b", "same_b"):
        assert bench.picture("a cat <lorax:plain:1>", override_settings={"sd_model_checkpoint": f"{name}.safetensors"}).pixels == expected
        assert bench.picture("a cat <lorax:plain:1>").pixels == first


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_hires_with_its_own_checkpoint(bench: Any, first: str, second: str) -> None:
    bench.switch(first)
    fields = {**HIRES, "hr_checkpoint_name": f"{second}.safetensors"}
    exported = bench.picture("a cat <lora:sigma-for-a:1>", hr_prompt="a cat <lora:sigma-for-b:1>", **fields)
    assert bench.picture("a cat <lorax:sigma:1>", hr_prompt="a cat <lorax:sigma:1>", **fields).pixels == exported.pixels
    assert bench.picture("a cat <lorax:sigma:1>", **fields).pixels == exported.pixels
    assert bench.picture("a cat", **fields).pixels != exported.pixels


def test_hires_with_its_own_prompt(bench: Any) -> None:
    exported = bench.picture("a cat <lora:plain-for-a:1>", hr_prompt="a dog <lora:second-for-a:1>", **HIRES).pixels
    assert bench.picture("a cat <lorax:plain:1>", hr_prompt="a dog <lorax:second:1>", **HIRES).pixels == exported
    again = bench.picture("a cat <lorax:plain:1>", hr_prompt="a dog <lorax:second:1>", **HIRES)
    assert again.pixels == exported
    assert "plain: " in again.infotext
    assert "second: " in again.infotext


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_refiner(bench: Any, first: str, second: str) -> None:
    """A copy holds the same tensors for both, so that the built-in, which keeps its networks on one model object, shows what is right."""
    fields = {"refiner_switch_at": 0.5, "steps": 6}
    bench.switch("same_a")
    exported = bench.picture("a cat <lora:plain-for-b:1>", refiner_checkpoint="same_b.safetensors", **fields).pixels
    bench.switch(first)
    assert bench.picture("a cat <lorax:plain:1>", refiner_checkpoint=f"{second}.safetensors", **fields).pixels == exported
    assert bench.picture("a cat <lorax:plain:1>").pixels == bench.picture("a cat <lora:plain-for-a:1>").pixels


def test_kept_models(bench: Any) -> None:
    """No callback tells that a kept model is back, and its weights still hold what was applied to them."""
    bench.set(sd_checkpoints_limit=2)
    try:
        for checkpoint in ("a", "b", "a", "b", "a"):
            bench.switch(checkpoint)
            assert bench.picture("a cat <lorax:sigma:1>").pixels == bench.picture(f"a cat <lora:sigma-for-{checkpoint}:1>").pixels
            if checkpoint == "b":
                bench.picture("a cat <lorax:plain:1>")
        plain = bench.picture("a cat").pixels
    finally:
        bench.set(sd_checkpoints_limit=1)
    bench.switch("b")
    bench.switch("a")
    assert bench.picture("a cat").pixels == plain


@pytest.mark.parametrize("cached", [False, True])
def test_fp8_toggles(bench: Any, cached: bool) -> None:
    """Compared with the exported file at each state: the WebUI itself keeps some fp8 rounding after fp8 is turned off."""

    def is_right(checkpoint: str) -> bool:
        return bench.picture("a cat <lorax:plain:1>").pixels == bench.picture(f"a cat <lora:plain-for-{checkpoint}:1>").pixels

    before = bench.picture("a cat <lorax:plain:1>").pixels
    bench.set(fp8_storage="Enable", cache_fp16_weight=cached)
    try:
        assert is_right("a")
        bench.switch("b")
        assert is_right("b")
        bench.switch("a")
    finally:
        bench.set(fp8_storage="Disable", cache_fp16_weight=False)
    assert is_right("a")
    bench.switch("b")
    assert is_right("b")
    bench.switch("a")
    assert bench.picture("a cat <lorax:plain:1>").pixels == before


def test_functional_networks(bench: Any) -> None:
    bench.set(lora_functional=True)
    try:
        for checkpoint in ("a", "same_b", "same_a"):
            bench.switch(checkpoint)
            for adapter in ("plain", "offset"):
                exported = bench.picture(f"a cat <lora:{adapter}-for-{base(checkpoint)}:1>").pixels
                assert bench.picture(f"a cat <lorax:{adapter}:1>").pixels == exported
    finally:
        bench.set(lora_functional=False)


def test_batches(bench: Any) -> None:
    for fields in ({"batch_size": 2}, {"n_iter": 2}):
        exported = bench.picture("a cat <lora:plain-for-a:1>", **fields).pixels
        assert bench.picture("a cat <lorax:plain:1>", **fields).pixels == exported


def test_img2img(bench: Any) -> None:
    bench.picture("a cat")
    fields = {"init_images": [bench.last], "denoising_strength": 0.6}
    exported = bench.picture("a dog <lora:plain-for-a:1>", **fields).pixels
    assert bench.picture("a dog <lorax:plain:1>", **fields).pixels == exported != bench.picture("a dog", **fields).pixels


@pytest.mark.parametrize("checkpoint", ["", "b"])
def test_an_inner_pass_of_another_extension(bench: Any, checkpoint: str) -> None:
    """ADetailer lets through the scripts of a list only, and needs no entry for us here: tags are no script."""

    def repainted(tag: str, inner: str) -> Picture:
        passes = {"Inner pass": {"args": [f"a dog {inner}", checkpoint and f"{checkpoint}.safetensors"]}}
        return bench.picture(f"a cat {tag}", n_iter=2, alwayson_scripts=passes)

    made = repainted("<lorax:plain:1>", "<lorax:second:1>")
    assert made.pixels == repainted("<lora:plain-for-a:1>", f"<lora:second-for-{checkpoint or 'a'}:1>").pixels
    assert "plain: " in made.infotext.partition("LoraX hashes: ")[2]
    assert "second: " in made.infotext.partition("LoraX hashes: ")[2]
    assert repainted("<lorax:plain:1>", "").pixels == repainted("<lora:plain-for-a:1>", "").pixels != made.pixels
