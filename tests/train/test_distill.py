"""Data-free distillation between tiny pipelines of genuine layout, from the command line to the file."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from converter.__main__ import main
from converter.samples import Widths, pruned, relative
from converter.samples.widths import layer_shapes
from lorax.adapter import LowRank
from lorax.archs import by_name
from lorax.checkpoint import open_checkpoint
from lorax.errors import Cancelled, LoraxError, NotTransferable
from lorax.formats import read_adapter, write_adapter
from lorax.linalg import Factors
from lorax.safefile import open_tensors, write_safetensors
from lorax.train.distill import DistillSettings, can_resume, distill, open_job, own_samples, state_folder
from lorax.train.distill import run as running
from lorax.train.distill.branches import attached
from lorax.train.distill.denoiser import loaded
from lorax.train.distill.points import predict_points
from tests.families import is_attention
from tests.train.pipelines import SPEAKING, diffusers_folder, weights

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]

SMALL = {"samples": 2, "points": 2, "sampling_steps": 1, "resolution": 64, "guidance": 1.0, "learning_rate": 1e-3}
SAID = "--samples 2 --points 2 --batch-size 6 --sampling-steps 1 --guidance 1 --resolution 64 --learning-rate 0.004 --device cpu"
QUIET = ("conv2.weight", "to_out.0.weight", "net.2.weight", "proj_out.weight")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))


def calm(name: str, widths: Widths = SPEAKING) -> dict[str, Tensor]:
    """A sample whose residual branches are quiet, as trained ones are: drawn at random they make a chaos that nothing learns."""
    drawn = weights(by_name(name), 0, widths)
    return {n: t * 0.2 if n.startswith("unet.") and n.endswith(QUIET) else t for n, t in drawn.items()}


def write_lora(
    path: Path, name: str, components: tuple[str, ...] = ("unet", "te1", "te2"), size: float = 0.3, widths: Widths = SPEAKING
) -> Path:
    """Random factors on the attention of an architecture, small enough to be an adapter and not an accident."""
    arch, generator = by_name(name), torch.Generator().manual_seed(3)
    shapes = {i: s for i, s in layer_shapes(arch, widths).items() if is_attention(arch.specs()[i]) and i.component.value in components}
    modules = {i: Factors(*(torch.randn(n, 2, generator=generator) * size for n in s)) for i, s in shapes.items()}
    modules = {i: Factors(f.up, f.down.T.contiguous()) for i, f in modules.items()}
    write_adapter(path, modules, arch, shapes=shapes, metadata={"ss_base_model_version": arch.base_model_version})
    return path


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source/, target/ (a fine-tune) and ink.safetensors"""
    folder = tmp_path_factory.mktemp("sd1")
    source = calm("sd1")
    diffusers_folder(folder / "source", "sd1", tensors=source)
    diffusers_folder(folder / "target", "sd1", tensors=relative(source, 0.1, keep=("text_encoder.",)))
    write_lora(folder / "ink.safetensors", "sd1")
    return folder


def tensors(path: Path) -> dict[str, Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name).clone() for name in file.tensors}


def same(a: Path, b: Path) -> bool:
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)


def go(folder: Path, out: Path, cancelled: Callable[[], bool] = lambda: False, **more: Any) -> Any:
    settings = DistillSettings(**{**SMALL, "steps": 4, "save_every": 3, "device": "cpu", **more})
    return distill(folder / "ink.safetensors", folder / "source", folder / "target", out, settings, cancelled=cancelled)


def test_sdxl_to_ssd_1b_learns_the_effect_and_the_file_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = calm("sdxl")
    diffusers_folder(tmp_path / "source", "sdxl", tensors=source)
    small = pruned(source, by_name("sdxl"), by_name("ssd-1b"), layout="diffusers", noise=0.05)
    diffusers_folder(tmp_path / "target", "ssd-1b", tensors=small)
    ink, out = write_lora(tmp_path / "ink.safetensors", "sdxl"), tmp_path / "out.safetensors"
    said = ["transfer", str(ink), "--source", str(tmp_path / "source"), "--target", str(tmp_path / "target"), "-o", str(out)]
    assert main([*said, "--method", "distill", "--steps", "6", "--out-rank", "4", *SAID.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trained"] is True
    assert told["losses"][-1] < 0.9 * told["losses"][0], "every step sees all that is learned from"
    assert told["missed"] < told["missed_start"], "on samples that were not learned from"
    adapter = read_adapter(out, by_name("ssd-1b"))
    assert adapter.unmatched == ()
    assert adapter.metadata["lorax.action"] == "distill"
    assert json.loads(adapter.metadata["lorax.report"])["steps"] == "6"
    assert json.loads(adapter.metadata["lorax.settings"])["seed"] == "0"
    assert "training" in adapter.metadata["ss_training_comment"]
    assert adapter.retargeted
    unet = [m for i, m in adapter.modules.items() if i.component == "unet"]
    assert {m.rank for m in unet if isinstance(m, LowRank)} == {4}
    assert not state_folder(out).exists()


def shown_by_file(path: Path, target: Path, points: Any, prompts: tuple[str, ...]) -> float:
    """The share of the effect that the written LoRA misses, by another road than the report's."""
    with open_checkpoint(target) as base, loaded(base, None, torch.device("cpu"), "no") as model:
        held, adapter = points.where(held=True), read_adapter(path, base.arch)
        plain = predict_points(model, points, held, prompts, model.encode(prompts), 4, lambda: None)
        with attached(model.layers, {i: m.delta() for i, m in adapter.modules.items()}) as missing:
            assert missing == []
            change = predict_points(model, points, held, prompts, model.encode(prompts), 4, lambda: None) - plain
    effect = points.effect[held]
    return float((change - effect).square().sum() / effect.square().sum())


def test_a_run_that_does_not_resume_begins_anew(sd1: Path, tmp_path: Path) -> None:
    """Whatever a run that was stopped has left, and with another rank."""
    out, seen = tmp_path / "ink.safetensors", list[int]()
    files, settings = (sd1 / "ink.safetensors", sd1 / "source", sd1 / "target"), DistillSettings(**SMALL, steps=4, device="cpu")
    assert not can_resume(*files, out, settings)
    with pytest.raises(Cancelled, match="training step 2 of 4"):
        distill(*files, out, settings, on_step=lambda step, steps, loss: seen.append(step), cancelled=lambda: len(seen) == 2)
    assert can_resume(*files, out, settings)
    other = replace(settings, steps=3, rank=5)
    assert not can_resume(*files, out, other)
    report = distill(*files, out, other, on_step=lambda step, steps, loss: seen.append(step))
    assert seen == [1, 2, 1, 2, 3]
    assert report.rank == 5


def test_a_resumed_run_is_the_run_that_was_not_stopped(sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    report = go(sd1, whole)
    assert len(report.losses) == 4
    seen: list[int] = []
    settings = DistillSettings(**SMALL, steps=4, device="cpu")
    files = sd1 / "ink.safetensors", sd1 / "source", sd1 / "target"
    with pytest.raises(Cancelled, match="training step 2 of 4; --resume"):
        distill(*files, parts, settings, on_step=lambda step, steps, loss: seen.append(step), cancelled=lambda: len(seen) == 2)
    assert not parts.exists()
    assert {p.name for p in state_folder(parts).iterdir()} == {"points.state", "training.state"}
    with pytest.raises(LoraxError, match="had learning_rate"):
        go(sd1, parts, resume=True, learning_rate=0.5)
    again = go(sd1, parts, resume=True)
    assert again.losses == report.losses
    assert same(whole, parts)
    assert not state_folder(parts).exists()
    with pytest.raises(LoraxError, match="nothing to resume"):
        go(sd1, parts, resume=True)
    with open_job(*files, settings) as job:
        monkeypatch.setattr(own_samples, "draw_samples", lambda *_: pytest.fail("the bases' own samples were drawn again"))
        points = running.gather(job, running.Ticker(lambda *_: None, lambda: False))
        shown = shown_by_file(whole, sd1 / "target", points, job.prompts)
    assert shown == pytest.approx(report.missed, rel=0.02), "what the file does, put on the target anew"
    with pytest.raises(NotTransferable, match="itself the result of a transfer"):
        distill(whole, sd1 / "target", sd1 / "source", tmp_path / "again.safetensors", settings)


@pytest.mark.parametrize("when", [4])
def test_a_stop_before_training_leaves_nothing(sd1: Path, tmp_path: Path, when: int) -> None:
    asked: list[int] = []
    out = tmp_path / "out" / "ink.safetensors"
    out.parent.mkdir()
    with pytest.raises(Cancelled, match="stopped while"):
        go(sd1, out, cancelled=lambda: asked.append(1) or len(asked) > when)
    assert list(out.parent.iterdir()) == []


def test_ctrl_c_saves_and_says_how_to_go_on(
    sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lorax.train.distill import learn

    real, calls = learn._step, list[int]()

    def interrupted(*args: Any) -> float:
        calls.append(1)
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(learn, "_step", interrupted)
    out = tmp_path / "ink.safetensors"
    said = ["transfer", str(sd1 / "ink.safetensors"), "--source", str(sd1 / "source"), "--target", str(sd1 / "target"), "-o", str(out)]
    said += ["--method", "distill", "--steps", "3", *SAID.split()]
    assert main(said) == 130
    assert "stopped at training step 1 of 3" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr(learn, "_step", real)
    assert main([*said, "--resume", "--report", str(tmp_path / "ink.html")]) == 0
    assert "training" in capsys.readouterr().out
    assert "effect cosine" in (tmp_path / "ink.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("scale", "different latent spaces"),
        ("encoder", "VAE encoders of the two bases differ"),
        ("no vae", "has no VAE"),
        ("edm", "EDM"),
        ("family", "Give the base that it was trained on"),
        ("text only", "no layer of the UNet is left"),
        ("no source", "give it with --source"),
        ("stray", "--rank means nothing"),
        ("stray other", "--steps means nothing"),
        ("empty prompts", "holds no prompt"),
        ("exists", "--force"),
    ],
)
def test_what_cannot_work_is_refused_before_any_model_is_loaded(
    change: str, said: str, sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    monkeypatch.setattr(running, "loaded", lambda *a: pytest.fail("a model was loaded"))
    target, ink, out, more, code = tmp_path / "target", sd1 / "ink.safetensors", tmp_path / "out.safetensors", list[str](), 1
    shutil.copytree(sd1 / "target", target)
    source = ["--source", str(sd1 / "source")]
    if change == "scale":
        config = json.loads((target / "vae" / "config.json").read_text())
        (target / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 1.5}))
        code = 3
    elif change == "encoder":
        path, code = next((target / "vae").glob("*.safetensors")), 3
        write_safetensors(path, {n: torch.randn_like(t) for n, t in tensors(path).items()}, {}, overwrite=True)
    elif change == "no vae":
        shutil.rmtree(target / "vae")
    elif change == "edm":
        config = json.loads((target / "scheduler" / "scheduler_config.json").read_text())
        (target / "scheduler" / "scheduler_config.json").write_text(json.dumps({**config, "prediction_type": "edm"}))
        code = 3
    elif change == "family":
        ink = write_lora(tmp_path / "xl.safetensors", "sdxl")
    elif change == "text only":
        ink, code = write_lora(tmp_path / "te.safetensors", "sd1", ("te1",)), 3
    elif change == "no source":
        source = []
    elif change == "stray":
        more = ["--rank", "4"]
    elif change == "empty prompts":
        (tmp_path / "p.txt").write_text("# nothing\n\n")
        more = ["--prompts", str(tmp_path / "p.txt")]
    elif change == "exists":
        out.write_bytes(b"mine")
    method = "auto" if change == "stray other" else "distill"
    given = ["transfer", str(ink), *source, "--target", str(target), "-o", str(out), "--method", method, "--steps", "1", *more]
    assert main([*given, "--device", "cpu"]) == code
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(said, err), err
    assert out.exists() == (change == "exists")
    assert not state_folder(out).exists()


def test_a_dry_run_says_what_it_would_cost(sd1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["transfer", str(sd1 / "ink.safetensors"), "--source", str(sd1 / "source"), "--target", str(sd1 / "target")]
    said += ["-o", str(tmp_path / "o.safetensors"), "--method", "distill", "--steps", "7", "--dry-run"]
    assert main(said) == 0
    assert "training" in capsys.readouterr().out
    assert main([*said, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sampling_passes"] == 3 * 32 * 15 * 2
    assert told["training_passes"] == 7 * 4
    assert not (tmp_path / "o.safetensors").exists()


def test_an_adapter_without_effect_is_nothing_to_learn(sd1: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.safetensors"
    write_lora(nothing, "sd1", size=1e-30)
    with pytest.raises(LoraxError, match="nothing to learn"):
        distill(nothing, sd1 / "source", sd1 / "target", tmp_path / "o.safetensors", DistillSettings(**SMALL, device="cpu", dtype="fp32"))
