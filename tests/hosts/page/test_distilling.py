"""Distillation in the tab of a real Forge: where weights carry nothing, a click trains, Cancel keeps what was learned, the file draws."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorax.safefile import open_tensors
from tests.hosts.adapters import Adapters
from tests.hosts.browser import WebPage
from tests.hosts.real_forge import sd1_config
from tests.panels import choose_transfer, wait_for, wait_for_preview

STEPS, MADE = 20, "plain-stranger-distilled"
RESULT, BAR = "lorax_transfer_result", "#lorax_panel_transfer .progressDiv"


@pytest.fixture
def stranger(host: Any) -> Iterator[None]:
    """A checkpoint ``stranger`` of a's blocks, unrelated to a; a distillation to it takes a minute, and nothing from the network."""
    if host.kind != "FORGE":
        pytest.skip("AUTOMATIC1111's WebUI comes without diffusers, which distillation needs")
    if "HF_HUB_CACHE" in os.environ:
        pytest.skip("HF_HUB_CACHE is set: else Forge has a cache of its own, which can be filled here")
    adapters = Adapters(host)
    path = adapters.checkpoint("stranger")
    write_unrelated(path, adapters.checkpoint("a"))
    keep_config(host.models / "diffusers")
    host.post("/probe/small-distillation")
    host.post("/sdapi/v1/refresh-checkpoints")
    yield
    host.switch("a")
    path.unlink()
    host.post("/sdapi/v1/refresh-checkpoints")


def write_unrelated(path: Path, checkpoint: Path) -> None:
    """The checkpoint with other weights of the same size in its UNet, as of another training."""
    generator, tensors = torch.Generator().manual_seed(7), load_file(checkpoint)
    for name, tensor in tensors.items():
        if name.startswith("model.diffusion_model.") and tensor.ndim > 1:
            drawn = torch.randn(tensor.shape, generator=generator) * tensor.float().square().mean().sqrt()
            tensors[name] = drawn.to(tensor.dtype)
    save_file(tensors, path)


def keep_config(hub: Path) -> None:
    """What diffusers looks up for a single file of SD1, where Forge has it keep such things; it says nothing of these few blocks."""
    home = hub / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    snapshot = home / "snapshots" / "of-a-test"
    shutil.copytree(sd1_config(), snapshot, dirs_exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(snapshot.name)


def test_what_weights_do_not_carry_is_distilled_by_a_click(stranger: None, tab: WebPage, host: Any, written: list[str]) -> None:
    written.append(MADE)
    result, before = host.models / "Lora" / f"{MADE}.safetensors", listed(host)
    choose_transfer(tab.page, "plain", "stranger")
    wait_for_preview(tab.page)
    wait_for(tab.page, RESULT, "Not transferable by weights")
    tab.page.locator("#lorax_distill .label-wrap").click()
    tab.page.locator("#lorax_distill input[type=number]").fill(str(STEPS))
    tab.page.click("#lorax_distill_start")
    begun = phase_at(tab, "sampling from the target")
    assert begun < 50, "training is still to come"
    tab.picture("distill-sampling")
    assert phase_at(tab, "training") > begun
    tab.page.click("#lorax_distill_cancel")
    wait_for(tab.page, RESULT, re.compile(rf"stranger: stopped at training step \d+ of {STEPS}; 'Distill' goes on from there"))
    assert not tab.page.locator("#lorax_transfer_files").filter(visible=True).count()
    tab.picture("distill-stopped")
    assert not result.exists()
    assert listed(host) == before, "what it keeps is no adapter"

    tab.page.click("#lorax_distill_start")
    phases = phases_until(tab, "plain was learned on stranger")
    assert "training" in phases
    assert not [phase for phase in phases if phase.startswith("sampling")], "it goes on from there"
    tab.picture("distill-done")
    with open_tensors(result) as file:
        assert file.metadata["lorax.action"] == "distill"
        assert json.loads(file.metadata["lorax.report"])["steps"] == str(STEPS)
    with tab.page.expect_download() as download:
        tab.page.locator("#lorax_transfer_files a").filter(visible=True).last.click()
    assert Path(download.value.path()).read_bytes() == result.read_bytes()
    assert [path.name for path in result.parent.iterdir() if path.is_dir()] == []
    assert listed(host) == {*before, MADE}

    host.switch("stranger")
    tab.top("txt2img")
    tab.tab("LoRA-X")
    tab.badge("plain", "not transferable")
    tab.badge(MADE, "same base")
    plain = host.picture("a cat").pixels
    assert host.picture("a cat <lorax:plain:1>").pixels == plain, "by weights it is refused"
    assert host.picture(f"a cat <lora:{MADE}:1>").pixels != plain
    assert host.picture(f"a cat <lorax:{MADE}:1>").pixels == host.picture(f"a cat <lora:{MADE}:1>").pixels


def listed(host: Any) -> set[str]:
    """Names of all adapters, as we and the built-in list them."""
    host.post("/sdapi/v1/refresh-loras")
    host.post("/lorax/v1/refresh")
    return {found["name"] for path in ("/lorax/v1/adapters", "/sdapi/v1/loras") for found in host.get(path)}


def phase_at(tab: WebPage, phase: str) -> int:
    """Wait until the progress bar says so; the percents that it shows."""
    bar = tab.page.locator(BAR).filter(has_text=re.compile(rf"LoRA-X: {phase} \d+%")).first
    bar.wait_for()
    return int(re.search(r"(\d+)%", bar.inner_text())[1])


def phases_until(tab: WebPage, said: str) -> list[str]:
    """All that the progress bar says until the result says this."""
    seen = dict[str, None]()
    for _ in range(1500):
        if tab.page.locator(f"#{RESULT}").filter(has_text=said).count():
            return list(seen)
        seen |= dict.fromkeys(re.findall(r"LoRA-X: (.+?) \d+%", " ".join(tab.page.locator(BAR).all_inner_texts())))
        tab.page.wait_for_timeout(200)
    raise TimeoutError(f"'{said}' was not said; seen were {list(seen)}")
