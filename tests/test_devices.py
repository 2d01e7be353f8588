"""Devices by name, and the whole river on one that is only pretended: nothing is mixed up, and what it lacks is done on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorax import device as devices
from lorax.bases import Bases
from lorax.checkpoint import open_checkpoint
from lorax.device import resolve_device
from lorax.errors import LoraxError
from lorax.formats import read_adapter
from lorax.linalg import Factors
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import Transferred, run_plan
from lorax.transfer.types import TransferSettings
from tests.families import Family, write_lora
from tests.pretend_device import pretended

KINDS = ("cuda", "xpu", "mps")


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x", "", "vulkan"])
def test_an_unknown_device_is_refused_with_those_that_are_known(name):
    with pytest.raises(LoraxError, match="expected auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "xpu", "mps"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(devices, "number_of", lambda kind: int(kind == "cuda" and name == "cuda:1"))
    with pytest.raises(LoraxError, match=f"the device '{name}' is not there"):
        resolve_device(name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pretended_device_keeps_tensors_apart_and_lacks_what_it_says(kind, monkeypatch):
    with pretended(kind, monkeypatch):
        x = torch.eye(3).to(f"{kind}:0")
        assert (x @ x).device.type == kind
        with pytest.raises(RuntimeError, match="same device"):
            _ = x + torch.eye(3)
        with pytest.raises(NotImplementedError):
            torch.linalg.eigh(x)
        if kind == "mps":
            with pytest.raises(TypeError):
                x.double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(288, 300), (320, 288)])
def test_bases_are_those_of_the_cpu(kind, decay, shape, monkeypatch):
    g = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(side, min(shape), generator=g)).Q for side in shape)
    weights = [(u * torch.arange(1, min(shape) + 1).float() ** -(decay + i / 10)) @ v.T for i in range(2)]
    expected = [of(span.project_dense(torch.ones(shape))) for span in Bases().spans(weights, 40)]
    with pretended(kind, monkeypatch):
        spans = Bases().spans([w.to(f"{kind}:0") for w in weights], 40)
        found = [of(span.project_dense(torch.ones(shape).to(f"{kind}:0"))).cpu() for span in spans]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "method", "target"), [("cuda", "project", "fine"), ("mps", "auto", "other")])
def test_a_transfer_is_that_of_the_cpu(kind: str, method: str, target: str, sd1: Family, tmp_path: Path, monkeypatch):
    lora = write_lora(tmp_path / "style.safetensors", sd1)
    expected = carried(sd1, lora, target, method, "cpu")
    with pretended(kind, monkeypatch):
        found = carried(sd1, lora, target, method, f"{kind}:0")
    assert [(d.target, d.action) for d in found.report.plan.decisions] == [(d.target, d.action) for d in expected.report.plan.decisions]
    assert found.modules.keys() == expected.modules.keys()
    for layer, factors in found.modules.items():
        torch.testing.assert_close(factors.dense().cpu(), expected.modules[layer].dense(), rtol=1e-3, atol=1e-4)


def of(delta: Factors | torch.Tensor) -> torch.Tensor:
    return delta.dense() if isinstance(delta, Factors) else delta


def carried(family: Family, lora: Path, target: str, method: str, where: str) -> Transferred:
    with open_checkpoint(family["source"]) as source, open_checkpoint(family[target]) as other:
        adapter = read_adapter(lora, source.arch)
        settings = TransferSettings(method=method, k=6, device=where, force=True)  # type: ignore[arg-type]
        plan = plan_transfer(adapter, source, other, settings)
        return run_plan(plan, adapter, source, other)
