"""sd-scripts' own options beside ours: each run learns and leaves a file that fits its base (tests/train/sd_scripts.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorax.checkpoint import open_checkpoint
from lorax.errors import LoraxError
from lorax.export import export_adapter
from lorax.formats import read_adapter
from lorax.layers import Component
from lorax.linalg import Factors
from lorax.safefile import open_tensors
from tests.train.sd_scripts import FOLDER, REASON, call, prepare, train

pytestmark = pytest.mark.skipif(not FOLDER, reason=REASON)
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
"""Of two processes; ``accelerate launch`` starts several on GPUs only."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd-scripts")
    prepare(folder, "sd1")
    return folder


def trained(work: Path, name: str, *more: str, steps: int = 4, launcher: tuple[str, ...] = ()) -> dict[Component, dict[str, Factors]]:
    """Deltas of what was trained, exported on the base, which checks their fingerprints."""
    train(work, "train_network.py", name, steps, 0.03, *more, launcher=launcher)
    with open_checkpoint(work / "base.safetensors") as base:
        made = export_adapter(read_adapter(work / "out" / f"{name}.safetensors"), base).modules
    found: dict[Component, dict[str, Factors]] = {}
    for layer, factors in made.items():
        found.setdefault(layer.component, {})[layer.path] = factors
    return found


def norms(deltas: dict[str, Factors]) -> list[float]:
    return [float(torch.linalg.matrix_norm(f.dense())) for f in deltas.values()]


def numbers(path: Path) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name).clone() for name in file.tensors}


@pytest.mark.parametrize(
    ("name", "more", "layers"),
    [
        ("full", ["--network_args", "kind=full"], 126),
        ("large", ["--network_dim=320"], 128),
        ("all", ["--network_args", "target=linear+conv", "self_contained=true"], 282),
        ("bf16", ["--mixed_precision=bf16", "--gradient_checkpointing"], 128),
        ("full-bf16", ["--mixed_precision=bf16", "--full_bf16", "--save_precision=bf16"], 128),
    ],
)
def test_what_is_trained_fits_the_base(work: Path, name: str, more: list[str], layers: int) -> None:
    """Of a full ΔΣ, what stayed zero is not written: the middle block sees one token, so its own attention's q and k learn nothing."""
    made = trained(work, name, *more)
    assert len(made[Component.UNET]) == layers
    assert len(made[Component.TE1]) >= 48
    assert all(max(norms(deltas)) > 0.01 for deltas in made.values())


@pytest.mark.parametrize(
    ("option", "component"), [("--network_train_unet_only", Component.UNET), ("--network_train_text_encoder_only", Component.TE1)]
)
def test_one_of_the_networks_alone(work: Path, option: str, component: Component) -> None:
    assert trained(work, component.value, option).keys() == {component}


def test_norms_are_scaled(work: Path) -> None:
    made = trained(work, "scaled", "--scale_weight_norms=0.02")
    assert all(max(norms(deltas)) == pytest.approx(0.02, rel=0.01) for deltas in made.values())


def test_a_state_goes_on(work: Path) -> None:
    """σ of a run of six steps, and of three and three, whose noise sd-scripts draws anew."""
    three = trained(work, "three", "--save_state_on_train_end", steps=3)
    trained(work, "six", "--resume=out/three-state", "--save_state_on_train_end", steps=6)
    resumed = numbers(work / "out" / "six.safetensors")
    first = numbers(work / "out" / "three.safetensors")
    assert sum(len(deltas) for deltas in three.values()) == 176
    apart = sum(float((resumed[n].float() - first[n].float()).square().sum()) for n in first) ** 0.5
    along = sum(float((resumed[n].float() * first[n].float()).sum()) for n in first)
    assert apart > 0
    assert along > 0.5 * sum(float(t.float().square().sum()) for t in first.values()), "it starts from what was learned"


def test_two_processes_learn_together(work: Path) -> None:
    made = trained(work, "two", launcher=LAUNCHER)
    said = read_adapter(work / "out" / "two.safetensors").metadata
    assert (said["ss_batch_size_per_device"], said["ss_total_batch_size"]) == ("4", "8")
    assert len(made[Component.UNET]) == 128
    assert all(max(norms(deltas)) > 0.01 for deltas in made.values())


def test_another_base_is_refused_and_nothing_is_lost(work: Path) -> None:
    file = work / "out" / "mine.safetensors"
    trained(work, "mine")
    before = file.read_bytes()
    call(work, "add-vae", "fine.safetensors", "other.safetensors")
    on_another = ["--network_weights=out/mine.safetensors", "--pretrained_model_name_or_path=other.safetensors"]
    with pytest.raises(AssertionError, match=r"'mine\.safetensors' was trained on base\.safetensors .* train on that base"):
        train(work, "train_network.py", "mine", 2, 0.0, *on_another)
    assert file.read_bytes() == before
    with pytest.raises(LoraxError), open_checkpoint(work / "fine.safetensors") as other:
        export_adapter(read_adapter(file), other)
