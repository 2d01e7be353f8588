"""What the extension promises in AUTOMATIC1111's WebUI. One contract for the real WebUI and for the one that is made up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts import real_a1111
from tests.hosts.adapters import Adapters, write_random
from tests.hosts.bench import Refused

PAIRS = [("a", "b"), ("same_a", "same_b")]
"""A switch that makes a new model object, and one that keeps it."""


@pytest.fixture(scope="module", params=["fake", "real"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "real":
        if reason := real_a1111.why_not():
            pytest.skip(reason)
        made = real_a1111.RealA1111()
    else:
        from tests.hosts.fake_a1111 import FakeBench

        made = FakeBench(tmp_path_factory.mktemp("webui"))
    try:
        Adapters(made).write()
        made.post("/lorax/v1/refresh")
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _as_it_was(bench: Any) -> Iterator[None]:
    """Every test starts on a, with the settings as they come."""
    bench.switch("a")
    yield
    assert "Traceback" not in bench.log().replace("Failed reading extension data from Git", "").partition("Startup time")[2], bench.log()[
        -3000:
    ]


def base(checkpoint: str) -> str:
    """Whose weights a checkpoint has."""
    return checkpoint.removeprefix("same_")


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


HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6, "hr_second_pass_steps": 4}


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


def test_fp8_toggles(bench: Any) -> None:
    before = bench.picture("a cat <lorax:plain:1>").pixels
    for cached in (False, True):
        bench.set(fp8_storage="Enable", cache_fp16_weight=cached)
        try:
            ours = bench.picture("a cat <lorax:plain:1>").pixels
            assert ours == bench.picture("a cat <lora:plain-for-a:1>").pixels
            bench.switch("b")
            assert bench.picture("a cat <lorax:plain:1>").pixels == bench.picture("a cat <lora:plain-for-b:1>").pixels
            bench.switch("a")
        finally:
            bench.set(fp8_storage="Disable", cache_fp16_weight=False)
        assert bench.picture("a cat <lorax:plain:1>").pixels == before


def test_functional_networks(bench: Any) -> None:
    bench.set(lora_functional=True)
    try:
        for checkpoint in ("a", "same_b", "same_a"):
            bench.switch(checkpoint)
            exported = bench.picture(f"a cat <lora:plain-for-{base(checkpoint)}:1>").pixels
            assert bench.picture("a cat <lorax:plain:1>").pixels == exported
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


def test_named_arguments(bench: Any) -> None:
    bench.switch("b")
    Adapters(bench).export("plain", "a", "b", "plain-projected", "--method", "project", "--rank", "8", "--force")
    exported = bench.picture("a cat <lora:plain-projected:1>").pixels
    assert bench.picture("a cat <lorax:plain:1:method=project:rank=8>").pixels == exported
    assert bench.picture("a cat <lorax:plain:1:method=project:rank=8:source=a>").pixels == exported
    assert bench.picture("a cat <lorax:plain:1>").pixels != exported


def test_settings_decide_and_stand_in_the_infotext(bench: Any) -> None:
    bench.switch("b")
    Adapters(bench).export("plain", "a", "b", "plain-projected", "--method", "project", "--rank", "8", "--force")
    exported = bench.picture("a cat <lora:plain-projected:1>").pixels
    copied = bench.picture("a cat <lorax:plain:1>")
    overridden = {"lorax_method": "always project, as in the paper", "lorax_rank": 8}
    ours = bench.picture("a cat <lorax:plain:1>", override_settings=overridden)
    assert ours.pixels == exported != copied.pixels, "the cond cache knows nothing of the settings"
    assert "LoraX rank: 8" in ours.infotext
    assert "LoraX hashes" in ours.infotext
    assert "LoraX rank" not in copied.infotext
    assert bench.picture("a cat <lorax:plain:1>").pixels == copied.pixels
    pasted = bench.paste(ours.infotext.replace("<lorax:plain:", "<lorax:plain:"))
    assert {key for _, key, _ in pasted["settings"]} >= {"lorax_method", "lorax_rank"}


def test_pasting_finds_a_renamed_adapter(bench: Any) -> None:
    said = bench.picture("a cat <lorax:plain:1>").infotext
    elsewhere = said.replace("plain", "called-otherwise")
    assert "<lorax:plain:1>" in bench.paste(elsewhere)["prompt"]


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("<lorax:plian:1>", "Did you mean 'plain'?"),
        ("<lorax:corrupt:1>", "corrupt"),
        ("<lorax:plain:strong>", "'strong' is no number"),
        ("<lorax:plain:1:source=nowhere>", "'nowhere'"),
        ("<lorax:plain:1:weight=2>", "none of unet, te"),
    ],
)
def test_what_cannot_be_applied_is_said(bench: Any, tag: str, said: str) -> None:
    without = bench.picture("a cat").pixels
    bench.picture("a cat <lorax:second:1>")
    made = bench.picture(f"a cat {tag}")
    assert made.pixels == without
    assert said in made.infotext.partition("LoraX problems: ")[2]
    assert said in bench.log()


def test_one_that_fails_leaves_the_others(bench: Any) -> None:
    made = bench.picture("a cat <lorax:nope:1><lorax:plain:1>")
    assert made.pixels == bench.picture("a cat <lora:plain-for-a:1>").pixels
    assert "LoraX problems" in made.infotext


def test_another_family_is_said(bench: Any) -> None:
    if "xl_a" not in bench.checkpoints:
        pytest.skip("the bench has no SDXL pair")
    without = bench.picture("a cat").pixels
    made = bench.picture("a cat <lorax:xl:1>")
    assert made.pixels == without
    assert "sdxl" in made.infotext.partition("LoraX problems: ")[2]


def test_a_file_that_changes_is_seen(bench: Any) -> None:
    """The tags stay the same, so that the host would take the encoding of the old prompt."""
    folder = bench.models / "Lora"
    shutil.copyfile(folder / "plain.safetensors", folder / "changing.safetensors")
    old = bench.picture("a cat <lorax:changing:1>").pixels
    assert old == bench.picture("a cat <lora:plain-for-a:1>").pixels
    write_random(folder / "changing.safetensors", bench.models / "Stable-diffusion" / "a.safetensors", seed=4)
    assert bench.picture("a cat <lorax:changing:1>").pixels == bench.picture("a cat <lora:second-for-a:1>").pixels != old


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_lorax_file_in_the_ordinary_folder(bench: Any, first: str, second: str) -> None:
    """The network-type hook: ``<lora:…>`` takes it, and it follows the checkpoint."""
    for checkpoint in (first, second, first):
        bench.switch(checkpoint)
        exported = bench.picture(f"a cat <lora:sigma-for-{base(checkpoint)}:1>")
        ours = bench.picture("a cat <lora:sigma:1>")
        assert ours.pixels == exported.pixels
        assert 'Lora hashes: "sigma: ' in ours.infotext
        mixed = bench.picture(f"a cat <lora:second-for-{base(checkpoint)}:0.5><lora:sigma:1>").pixels
        expected = f"a cat <lora:second-for-{base(checkpoint)}:0.5><lora:sigma-for-{base(checkpoint)}:1>"
        assert mixed == bench.picture(expected).pixels


def test_a_lorax_file_at_the_hires_checkpoint(bench: Any) -> None:
    fields = {**HIRES, "hr_checkpoint_name": "b.safetensors"}
    exported = bench.picture("a cat <lora:sigma-for-a:1>", hr_prompt="a cat <lora:sigma-for-b:1>", **fields).pixels
    assert bench.picture("a cat <lora:sigma:1>", **fields).pixels == exported


def test_a_file_in_our_own_folder(bench: Any) -> None:
    without = bench.picture("a cat").pixels
    assert bench.picture("a cat <lorax:apart:1>").pixels != without
    assert "apart" in {a["name"] for a in bench.get("/lorax/v1/adapters")}


def test_status_and_version(bench: Any) -> None:
    assert bench.get("/lorax/v1/version")["usable"] is True
    bench.picture("a cat <lorax:plain:1>")
    status = bench.get("/lorax/v1/status")
    assert status["checkpoint"] == "a"
    assert "same base" in status["applied"]["plain"]["summary"]


def test_transfer_writes_into_our_folder_only(bench: Any) -> None:
    report = bench.post(
        "/lorax/v1/transfer", {"adapter": "plain", "target": "b.safetensors", "dtype": "fp32", "output": "made", "overwrite": True}
    )
    assert report["verdict"] == "should work"
    bench.switch("b")
    made = (bench.models / "Lorax" / "made.safetensors").read_bytes()
    (bench.models / "Lora" / "made-copy.safetensors").write_bytes(made)
    assert bench.picture("a cat <lora:made-copy:1>").pixels == bench.picture("a cat <lora:plain-for-b:1>").pixels
    made_here = bench.picture("a cat <lorax:made:1>")
    assert "LoraX problems" not in made_here.infotext, "it is for this checkpoint"
    assert made_here.pixels != bench.picture("a cat").pixels
    for wrong in ("../made", "a/b", "..", "C:made", ".hidden"):
        with pytest.raises(Refused) as refused:
            bench.post("/lorax/v1/transfer", {"adapter": "plain", "target": "b.safetensors", "output": wrong})
        assert refused.value.status == 422
    with pytest.raises(Refused) as refused:
        bench.post("/lorax/v1/transfer", {"adapter": "../plain", "target": "b.safetensors"})
    assert refused.value.status == 422


def test_a_transferred_file_is_refused_on_another_base(bench: Any) -> None:
    made = bench.picture("a cat <lorax:plain-for-b:1>")
    assert made.pixels == bench.picture("a cat").pixels
    assert "made by a transfer" in made.infotext


def test_nothing_of_ours_enters_the_hosts_lists(bench: Any) -> None:
    bench.picture("a cat <lorax:plain:1><lora:sigma:1>")
    trace = bench.trace()
    assert not [name for name in trace["memory"] if name.startswith("lorax:")]
    bench.picture("a cat")
    trace = bench.trace()
    assert trace["loaded"] == []
    assert trace["patched"] == []
