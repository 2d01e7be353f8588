"""Pictures of several passes in Forge: hires, refiner, another checkpoint for one request."""

from __future__ import annotations

from typing import Any

import pytest

HIRES = {
    "enable_hr": True,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.6,
    "hr_second_pass_steps": 2,
    "hr_additional_modules": ["Use same choices"],
}


def _hires(bench: Any) -> dict[str, Any]:
    """Neo enlarges no latents, and has no other upscaler without a file of its own."""
    return {**HIRES, "hr_upscaler": "None"} if getattr(bench, "kind", "") == "NEO" else HIRES


def test_hires_with_its_own_prompt(bench: Any) -> None:
    hires = _hires(bench)
    exported = bench.picture("a cat <lora:plain-for-a:1>", hr_prompt="a dog <lora:second-for-a:1>", **hires).pixels
    again = bench.picture("a cat <lorax:plain:1>", hr_prompt="a dog <lorax:second:1>", **hires)
    assert again.pixels == exported
    assert "plain: " in again.infotext
    assert "second: " in again.infotext
    same = bench.picture("a cat <lora:plain-for-a:1>", **hires).pixels
    assert bench.picture("a cat <lorax:plain:1>", **hires).pixels == same != exported


def test_hires_with_its_own_checkpoint(bench: Any) -> None:
    fields = {**_hires(bench), "hr_checkpoint_name": "b.safetensors"}
    exported = bench.picture("a cat <lora:sigma-for-a:1>", hr_prompt="a cat <lora:sigma-for-b:1>", **fields)
    assert bench.picture("a cat <lorax:sigma:1>", **fields).pixels == exported.pixels
    assert bench.picture("a cat", **fields).pixels != exported.pixels
    assert bench.picture("a cat <lorax:plain:1>").pixels == bench.picture("a cat <lora:plain-for-a:1>").pixels


REFINER = {"refiner_checkpoint": "b.safetensors", "refiner_switch_at": 0.5, "steps": 4}


def _by_steps(bench: Any, **settings: Any) -> dict[str, Any]:
    """Neo switches by the noise that is left, if it is not told to count steps."""
    return {"override_settings": {"refiner_use_steps": True, **settings}} if getattr(bench, "kind", "") == "NEO" else {}


@pytest.mark.parametrize("in_place", [False, True])
def test_refiner_with_other_files_in_its_pass(bench: Any, in_place: bool) -> None:
    """Neo alone puts other names into the refiner's pass, and can put its weights into the model that is there."""
    if getattr(bench, "kind", "") != "NEO":
        pytest.skip("this host has no such setting")
    fields = {**REFINER, **_by_steps(bench, refiner_fast_sd=in_place, refiner_lora_replacement="sigma-for-a=sigma-for-b")}

    def picture(prompt: str) -> str:
        """From a model that is loaded anew: a swap in place leaves the refiner's LoRA on Neo's own pictures (test_neo_swap.py)."""
        bench.switch("b")
        bench.picture("a cat")
        bench.switch("a")
        return bench.picture(prompt, **fields).pixels

    exported = picture("a cat <lora:sigma-for-a:1>")
    assert picture("a cat <lorax:sigma:1>") == exported != picture("a cat")
    assert picture("a cat <lora:sigma:1>") == exported
    picture("a cat")
    bench.switch("b")
    bench.picture("a cat")


def test_refiner(bench: Any) -> None:
    """The built-in's file is the same for both passes, so an adapter of equal tensors for both checkpoints shows what is right."""
    fields = {**REFINER, **_by_steps(bench)}
    exported = bench.picture("a cat <lora:plain-for-b:1>", **fields).pixels
    assert bench.picture("a cat <lorax:plain:1>", **fields).pixels == exported != bench.picture("a cat", **fields).pixels
    assert bench.picture("a cat <lorax:plain:1>").pixels == bench.picture("a cat <lora:plain-for-a:1>").pixels


def test_per_request_checkpoint(bench: Any) -> None:
    first = bench.picture("a cat <lorax:plain:1>").pixels
    bench.switch("b")
    expected = bench.picture("a cat <lora:plain-for-b:1>").pixels
    bench.switch("a")
    assert bench.picture("a cat <lorax:plain:1>", override_settings={"sd_model_checkpoint": "b.safetensors"}).pixels == expected
    assert bench.picture("a cat <lorax:plain:1>").pixels == first


def test_kept_models(bench: Any) -> None:
    """reForge alone keeps several: one comes back as it was left, and no callback tells."""
    if getattr(bench, "kind", "") != "REFORGE":
        pytest.skip("this host keeps one model")
    expected = {}
    for checkpoint in ("b", "a"):
        bench.switch(checkpoint)
        expected[checkpoint] = [bench.picture(f"a cat{tag}").pixels for tag in ("", f" <lora:sigma-for-{checkpoint}:1>")]
    bench.set(sd_checkpoints_limit=2)
    try:
        before = len(bench.log())
        for checkpoint in ("b", "a", "b", "a"):
            bench.switch(checkpoint)
            for prompt in ("a cat <lorax:sigma:1>", "a cat <lora:sigma:1>"):
                assert bench.picture(prompt).pixels == expected[checkpoint][1]
            assert bench.picture("a cat").pixels == expected[checkpoint][0]
        assert bench.log()[before:].count("Loading model ") == 1
    finally:
        bench.set(sd_checkpoints_limit=1)
