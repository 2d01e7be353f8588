"""What the extension promises in AUTOMATIC1111's WebUI: tags, settings, messages, the hook and the routes."""

from __future__ import annotations

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.hosts.a1111.pairs import HIRES, PAIRS, base
from tests.hosts.adapters import Adapters, write_random
from tests.hosts.bench import Refused


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


def test_a_self_contained_file_without_its_base(bench: Any) -> None:
    """Its factors stand for it: they are projected on the checkpoint, as the converter does without a source."""
    for checkpoint in ("a", "b"):
        bench.switch(checkpoint)
        exported = bench.picture(f"a cat <lora:whole-for-{checkpoint}:1>")
        ours = bench.picture("a cat <lora:whole:1>")
        assert ours.pixels == exported.pixels != bench.picture(f"a cat <lora:plain-for-{checkpoint}:1>").pixels
        assert 'Lora hashes: "whole: ' in ours.infotext
        assert bench.picture("a cat <lorax:whole:1>").pixels == exported.pixels
    assert "nothing could be checked" in bench.log()


def test_interrupt_stops_a_transfer(bench: Any) -> None:
    if not hasattr(bench, "url"):
        pytest.skip("a picture of the made-up WebUI cannot be interrupted from outside; test_a1111_unload has the like")
    bench.post("/probe/hold-transfer")
    with ThreadPoolExecutor(1) as other:
        start = time.monotonic()
        waiting = other.submit(bench.picture, "a cat <lorax:plain:1:rank=7:method=project>")
        told = ""
        while "held by a test" not in told and time.monotonic() - start < 50:
            time.sleep(0.1)
            told = bench.get("/sdapi/v1/progress", skip_current_image="true")["textinfo"] or ""
        bench.post("/sdapi/v1/interrupt")
        made = waiting.result()
    assert re.fullmatch(r"LoRA-X: held by a test \d+/600", told), "the WebUI shows what we do"
    assert "the picture was interrupted" in made.infotext
    assert not (bench.get("/sdapi/v1/progress", skip_current_image="true")["textinfo"] or "").startswith("LoRA-X")
    assert "LoraX problems" not in bench.picture("a cat <lorax:plain:1:rank=7:method=project>").infotext


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
