"""Distillation from the panel, down to the file, on tiny models."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from converter.samples import relative
from lorax.archs import by_name
from lorax.errors import Cancelled
from lorax.render.words import sentence
from lorax.safefile import open_tensors
from lorax.train import distill
from lorax.train.distill import DistillSettings, state_folder
from lorax.train.distill.measure import FAIR, GOOD, in_words
from lorax.transfer.types import no_progress
from lorax.ui.distilling import distil, of_the_whole
from lorax.ui.jobs import Estimate
from lorax.ui.standalone import place_of
from lorax.ui.transferring import Transfers
from tests.train.pipelines import SPEAKING, diffusers_folder, weights
from tests.train.test_distill import SMALL, write_lora
from tests.ui.test_panels import options, words

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]


@pytest.fixture
def transfers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transfers:
    """An adapter, its base and a fine-tune as whole models; a distillation takes seconds."""
    folders = [tmp_path / name for name in ("adapters", "checkpoints", "out")]
    for folder in folders:
        folder.mkdir()
    source = weights(by_name("sd1"), 0, SPEAKING)
    diffusers_folder(folders[1] / "source", "sd1", tensors=source)
    diffusers_folder(folders[1] / "target", "sd1", tensors=relative(source, 0.1, keep=("text_encoder.",)))
    write_lora(folders[0] / "ink.safetensors", "sd1")
    monkeypatch.setattr(distill, "DistillSettings", partial(distill.DistillSettings, **SMALL))
    return Transfers(place_of(*folders, "cpu"))


def test_the_card_says_what_the_report_says(transfers: Transfers, tmp_path: Path) -> None:
    *_, (view, files) = distil(transfers, "ink", "source", "target", options(), 2, no_progress)
    assert files == [tmp_path / "out" / "ink-target-distilled.safetensors"]
    file = open_tensors(files[0])
    assert file.metadata["lorax.action"] == "distill"
    file.close()
    cosine = float(re.search(r"direction of the effect \(cosine\) (-?\d\.\d\d)", words(view))[1])
    tone = "good" if cosine >= GOOD else "weak" if cosine >= FAIR else "bad"
    assert f'class="verdict {tone}"' in view
    assert sentence(in_words(cosine)) in words(view)


def test_what_was_stopped_is_gone_on_with(transfers: Transfers, tmp_path: Path) -> None:
    """By the same click; and what lies among the adapters meanwhile is none."""
    folder = tmp_path / "adapters"
    among = Transfers(place_of(folder, tmp_path / "checkpoints", folder, "cpu"))
    asked = "ink", "source", "target", options(folder="adapters"), 3
    texts: list[str] = []

    def stop(text: str, done: int, total: int) -> None:
        texts.append(text)
        if texts.count("training") == 4:
            raise Cancelled("stopped")

    *_, (view, files) = distil(among, *asked, stop)
    assert "target: stopped at training step 2 of 3; 'Distill' goes on from there" in words(view)
    assert files == []
    assert state_folder(folder / "ink-target-distilled.safetensors").is_dir()
    among.place.list_again()
    assert list(among.place.adapters()) == ["ink"]
    texts.clear()
    *_, (view, files) = distil(among, *asked, lambda text, *_: texts.append(text))
    assert "ink was learned on target" in words(view)
    assert not any(text.startswith("sampling") for text in texts)
    assert {path.name for path in folder.iterdir()} == {"ink.safetensors", "ink-target-distilled.safetensors"}


def test_progress_is_of_the_whole() -> None:
    """Most of the time is still to come when the transfer that training starts from is done."""
    estimate, shares = Estimate(), list[float]()
    tell = of_the_whole(DistillSettings(), estimate)
    for text in ("comparing the two bases", "transferring", "sampling from the source", "measuring the adapter's effect", "training"):
        tell(text, 9, 10)
        shares.append(estimate.share)
    assert shares[0] == shares[1] < 0.1 < shares[2] < 0.5 < shares[3] < shares[4] < 1
    tell("hashing the target for its metadata", 10, 10)
    assert estimate.share == 1
