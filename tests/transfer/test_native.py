"""Native LoRA-X adapters through the river: rebuilt on their base, checked by fingerprints, projected onto another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lorax.adapter import BaseHint
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import BaseMismatch, SourceNeeded
from lorax.formats import fingerprint, read_adapter, write_native
from lorax.layers import LayerId
from lorax.linalg import Factors, flatten_weight
from lorax.safefile import write_safetensors
from lorax.spectral import compute_basis
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import run_plan
from tests.families import Family, is_attention

K = 6


def native_deltas(base: Checkpoint, k: int = K) -> tuple[dict[LayerId, torch.Tensor], dict[LayerId, Factors]]:
    """Random σ for the attention layers of a base, and the deltas that they give."""
    generator = torch.Generator().manual_seed(5)
    sigmas: dict[LayerId, torch.Tensor] = {}
    deltas: dict[LayerId, Factors] = {}
    for layer in base.layers.values():
        if is_attention(layer.spec) and layer.id.component == "unet":
            basis = compute_basis(flatten_weight(base.read(layer)), k)
            sigmas[layer.id] = torch.randn(k, generator=generator).half()
            deltas[layer.id] = Factors(basis.U * sigmas[layer.id].float(), basis.V.T)
    return sigmas, deltas


@pytest.fixture(scope="module")
def native_file(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("native") / "style.safetensors"
    with open_checkpoint(sd1["source"]) as base:
        sigmas, deltas = native_deltas(base)
        prints = {i: fingerprint(d) for i, d in deltas.items()}
        write_native(path, sigmas, base.arch, fingerprints=prints, k=K, base=BaseHint(name="source"), metadata={})
    return path


def run(path: Path, source: Path | None, target: Path, **settings: object):
    with open_checkpoint(target) as t, open_checkpoint(source or target) as s:
        adapter = read_adapter(path, s.arch)
        plan = plan_transfer(adapter, s if source else None, t)
        return plan, run_plan(plan, adapter, s if source else None, t)


def test_a_native_adapter_is_projected_at_its_own_k(sd1: Family, native_file: Path):
    plan, done = run(native_file, sd1["source"], sd1["fine"])
    assert plan.method == "project"
    assert {d.k for d in plan.placed} == {K}
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        _, deltas = native_deltas(source)
        for layer in list(done.modules)[:5]:
            basis = compute_basis(flatten_weight(target.read(target.layers[layer])), K)
            expected = basis.U @ (basis.U.T @ deltas[layer].dense() @ basis.V) @ basis.V.T
            error = (done.modules[layer].dense() - expected).norm() / expected.norm()
            assert float(error) < 0.11  # 99 % of the energy is kept when it is factored anew


def test_carried_to_its_own_base_it_is_the_identity(sd1: Family, native_file: Path):
    _, done = run(native_file, sd1["source"], sd1["source"])
    with open_checkpoint(sd1["source"]) as source:
        _, deltas = native_deltas(source)
    assert done.report.energy_kept == pytest.approx(1.0, abs=0.011)
    for layer, factors in done.modules.items():
        error = (factors.dense() - deltas[layer].dense()).norm() / deltas[layer].dense().norm()
        assert float(error) < 0.11


def test_without_its_base_it_means_nothing(sd1: Family, native_file: Path):
    with pytest.raises(SourceNeeded, match="--source"):
        run(native_file, None, sd1["fine"])


def test_on_another_base_its_fingerprints_do_not_come_out(sd1: Family, native_file: Path):
    with pytest.raises(BaseMismatch, match="off"):
        run(native_file, sd1["fine"], sd1["source"])


@pytest.mark.parametrize(("cast", "accepted"), [(lambda t: t.half(), True), (lambda t: t.to(torch.float8_e4m3fn).half(), False)])
def test_a_rounded_copy_of_the_base_is_told_by_its_fingerprints(
    tmp_path: Path, sd1: Family, native_file: Path, cast: Callable[[torch.Tensor], torch.Tensor], accepted: bool
):
    from lorax.safefile import open_tensors

    copy = tmp_path / "copy.safetensors"
    with open_tensors(sd1["source"]) as file:
        write_safetensors(copy, {n: cast(t) if (t := file.read(n)).is_floating_point() else t for n in file.tensors}, {})
    if accepted:
        assert run(native_file, copy, sd1["fine"])[1].modules
    else:
        with pytest.raises(BaseMismatch):
            run(native_file, copy, sd1["fine"])
