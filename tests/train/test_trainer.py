"""``python -m lorax.train`` on a tiny pipeline and generated pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lorax.bases import Bases
from lorax.checkpoint import open_checkpoint
from lorax.export import export_adapter
from lorax.formats import read_adapter
from lorax.safefile import open_tensors
from lorax.train import standalone
from lorax.train.__main__ import main
from lorax.train.data import Picture, Slot, batches, bucket, find_pictures
from lorax.train.loop import Run, _share, _step, learning_rate
from lorax.train.parts import pixels_of_latent
from lorax.train.settings import TrainSettings
from lorax.train.step import compute_loss, make_noise_schedule
from tests.train.pipelines import diffusers_folder

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def arguments(base: Path, pictures: Path, output: Path, *more: str) -> list[str]:
    said = "--resolution 64 --rank 6 --learning-rate 0.02 --warmup 1 --sample-every 0 --device cpu"
    return [str(base), str(pictures), "-o", str(output), *said.split(), *more]


def tensors(path: Path) -> dict[str, Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name).clone() for name in file.tensors}


def same(a: Path, b: Path) -> bool:
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)


def mean_loss(run: Run) -> float:
    """Over draws that training did not see."""
    schedule, every = make_noise_schedule(run.parts), batches(run.material.pictures, 4, 77)
    with torch.no_grad():
        return sum(float(compute_loss(run.parts, schedule, run.material, next(every), 99, torch.device("cpu"))) for _ in range(4)) / 4


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_the_loss_falls_below_the_frozen_bases_and_the_files_say_what_they_are(
    name: str, base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base if name == "sd1" else diffusers_folder(tmp_path / name, name)
    kept: list[Run] = []
    go: Callable[[TrainSettings], Run] = standalone.run_training
    monkeypatch.setattr(standalone, "run_training", lambda settings: kept.append(go(settings)) or kept[0])
    out, lora = tmp_path / "a.safetensors", tmp_path / "a-lora.safetensors"
    steps = "25" if name == "sd1" else "5"
    more = ["--steps", steps, "--batch-size", "2", "--export", str(lora), "--sample-every", steps, "--sample-steps", "2"]
    assert main(arguments(folder, pictures, out, *more)) == 0
    run = kept[0]
    trained = mean_loss(run)
    with run.network.off():
        frozen = mean_loss(run)
    assert trained < 0.98 * frozen
    adapter = read_adapter(out)
    assert adapter.native is not None
    assert adapter.native.k == 6
    assert adapter.arch.family == name
    assert adapter.metadata["ss_base_model_version"] == run.parts.arch.base_model_version
    assert adapter.metadata["ss_output_name"] == "a"
    assert json.loads(adapter.metadata["ss_tag_frequency"])[pictures.name] == {"red and yellow stripes": 4}
    assert read_adapter(lora).native is None
    with open_checkpoint(folder) as checkpoint:
        made = export_adapter(adapter, checkpoint, bases=Bases())
    assert len(made.modules) == len(adapter.modules)
    assert len(list((tmp_path / "a-samples").glob("step-*.png"))) == 2
    assert (tmp_path / "a-samples" / "grid.png").is_file()
    run.network.load_state_dict({n: torch.zeros_like(p) for n, p in run.network.state_dict().items()})
    run.network.load(out)
    assert mean_loss(run) == pytest.approx(trained, rel=1e-3), "the file loads back to the same loss"


def test_a_resumed_run_is_the_run_that_was_not_interrupted(base: Path, pictures: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert main(arguments(base, pictures, whole, "--steps", "6", "--save-every", "3")) == 0
    assert main(arguments(base, pictures, parts, "--steps", "3")) == 0
    assert main(arguments(base, pictures, parts, "--steps", "6", "--resume")) == 0
    assert same(whole, parts)
    assert not same(whole, tmp_path / "whole-000003.safetensors")


def test_ctrl_c_saves(
    base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    real = compute_loss
    calls: list[int] = []

    def interrupted(*args: object) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("lorax.train.loop.compute_loss", interrupted)
    out = tmp_path / "a.safetensors"
    assert main(arguments(base, pictures, out, "--steps", "5")) == 130
    assert "stopped at step 2 of 5" in capsys.readouterr().err
    assert read_adapter(out).metadata["ss_steps"] == "2"
    monkeypatch.setattr("lorax.train.loop.compute_loss", real)
    assert main(arguments(base, pictures, out, "--steps", "5", "--resume")) == 0
    whole = tmp_path / "whole.safetensors"
    assert main(arguments(base, pictures, whole, "--steps", "5")) == 0
    assert same(out, whole), "nothing was lost"


def test_ctrl_c_during_the_last_step_ends_a_whole_run(base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    real = compute_loss

    def interrupted(*args: object) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("lorax.train.loop.compute_loss", interrupted)
    out, lora = tmp_path / "a.safetensors", tmp_path / "a-lora.safetensors"
    assert main([*arguments(base, pictures, out), "--steps", "1", "--export", str(lora)]) == 0
    assert lora.exists()


def test_processes_share_what_one_would_accumulate(tmp_path: Path) -> None:
    """Step by step, two processes see the places that one process sees with two batches a step."""
    made = [Picture(Path(f"{i}.png"), "x", (64, 64)) for i in range(5)]
    settings = TrainSettings(tmp_path, tmp_path, tmp_path, batch_size=2)

    def share(rank: int, world: int, accumulate: int, step: int) -> list[list[Slot]]:
        accelerator = SimpleNamespace(num_processes=world, process_index=rank)
        told = replace(settings, accumulate=accumulate)
        run = SimpleNamespace(settings=told, accelerator=accelerator, material=SimpleNamespace(pictures=made), step=step)
        return list(islice(_share(run), 4))  # type: ignore[arg-type]

    one, first, second = share(0, 1, 2, 0), share(0, 2, 1, 0), share(1, 2, 1, 0)
    assert one == [first[0], second[0], first[1], second[1]]
    assert share(0, 1, 2, 1)[:2] == one[2:], "a resumed run goes on where it stopped"


def test_two_processes_give_the_numbers_of_one_that_accumulates(base: Path, pictures: Path, tmp_path: Path) -> None:
    """To the bit, on as many threads: halving is exact and two gradients have one order of addition; three have not."""
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*arguments(base, pictures, one, "--steps", "4"), "--accumulate", "2"]) == 0
    finally:
        torch.set_num_threads(threads)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lorax.train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*words, *arguments(base, pictures, two, "--steps", "4")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert same(one, two)


@pytest.mark.parametrize("kind", ["full", "self-contained"])
def test_other_kinds(base: Path, pictures: Path, tmp_path: Path, kind: str) -> None:
    more = ["--kind", "full"] if kind == "full" else ["--self-contained"]
    out = tmp_path / "a.safetensors"
    assert main(arguments(base, pictures, out, "--steps", "2", "--target", "attn+ff", "--gradient-checkpointing", *more)) == 0
    native = read_adapter(out).native
    assert native is not None
    assert native.self_contained
    assert native.diagonal == (kind != "full")
    assert main(arguments(base, pictures, out, "--steps", "3", "--target", "attn+ff", "--resume", *more)) == 0


def test_mixed_precision(base: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert main(arguments(base, pictures, out, "--steps", "3", "--precision", "bf16")) == 0
    with open_checkpoint(base) as checkpoint:
        export_adapter(read_adapter(out), checkpoint)  # the fingerprints are those of the file's own weights


def test_half_precision_with_scaled_gradients(base: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 as on a GPU: accelerate refuses it on a CPU, torch does not. A scale that is too high is lowered, and resumed."""
    monkeypatch.setattr(standalone, "_accelerator", accelerator_in_half_precision)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    half = ["--precision", "fp16"]
    assert main([*arguments(base, pictures, whole, "--steps", "8"), *half]) == 0
    assert main([*arguments(base, pictures, parts, "--steps", "5"), *half]) == 0
    state = torch.load(tmp_path / "parts-state" / "optimizer.pt", weights_only=True)
    assert 0 < state["scaler"]["scale"] < TOO_HIGH
    assert main([*arguments(base, pictures, parts, "--steps", "8", "--resume"), *half]) == 0
    assert same(whole, parts)
    assert any(bool(t.any()) for t in tensors(whole).values()), "some steps were taken"


TOO_HIGH = 2.0**40


def accelerator_in_half_precision(_: TrainSettings) -> Any:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    made = accelerate.Accelerator(cpu=True)
    made.state._mixed_precision, made.native_amp = "fp16", True
    made.scaler = torch.amp.GradScaler("cpu", init_scale=TOO_HIGH, growth_interval=2, backoff_factor=2.0**-12)
    return made


def test_buckets_and_batches() -> None:
    assert bucket(512, 512, 512) == (512, 512)
    assert bucket(1920, 1080, 512) == (704, 384)
    assert bucket(100, 4000, 512) == (256, 1024)
    assert bucket(512, 512, 16, 16) == (16, 16)
    made = [Picture(Path(f"{i}.png"), "x", (64, 64) if i < 5 else (64, 128)) for i in range(6)]
    every = batches(made, 2, 0)
    first = [next(every) for _ in range(4)]
    assert sorted({slot.picture for batch in first for slot in batch}) == [0, 1, 2, 3, 4, 5]
    assert all(len({made[slot.picture].size for slot in batch}) == 1 for batch in first)
    assert [slot.draw for batch in first for slot in batch] == list(range(8))


def test_how_many_pixels_a_latent_stands_for(base: Path, tmp_path: Path) -> None:
    assert pixels_of_latent(base, None) == 8
    assert pixels_of_latent(tmp_path / "file.safetensors", None) == 8
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [16, 32]}))
    assert pixels_of_latent(tmp_path / "file.safetensors", tmp_path) == 2


def test_the_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    settings = TrainSettings(tmp_path, tmp_path, tmp_path, steps=100, warmup=10, learning_rate=1.0, schedule="cosine")
    assert learning_rate(settings, 0) == pytest.approx(0.1)
    assert learning_rate(settings, 10) == 1.0
    assert learning_rate(settings, 99) < 0.01


def test_a_picture_is_upright_as_its_camera_says(tmp_path: Path) -> None:
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.new("RGB", (128, 64), "red").save(tmp_path / "a" / "0.jpg", exif=turned)
    assert [p.size for p in find_pictures(tmp_path, 64, "red")] == [bucket(64, 128, 64)]


def test_one_process_hears_that_another_was_asked_to_stop(tmp_path: Path) -> None:
    """All end after the same step: one that left early would be waited for."""

    def reduce(mine: Tensor, reduction: str) -> Tensor:
        assert reduction == "mean"
        return (mine + torch.tensor([0.5, 1.0])) / 2

    accelerator = SimpleNamespace(num_processes=1, device="cpu", reduce=reduce, clip_grad_norm_=lambda *_: None)
    optimizer = SimpleNamespace(param_groups=[], step=lambda: None, zero_grad=lambda **_: None)
    settings = TrainSettings(tmp_path, tmp_path, tmp_path)
    network = SimpleNamespace(parameters=lambda: [])
    run = SimpleNamespace(settings=settings, accelerator=accelerator, optimizer=optimizer, network=network, step=0, asked=False)
    assert _step(run, None, iter([])) == (0.25, True)  # type: ignore[arg-type]


def test_pictures_are_found_in_subfolders(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "a" / "b")
    assert len(find_pictures(tmp_path, 64, None)) == 4
