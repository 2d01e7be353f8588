"""Distillation from the panel, down to the file, on tiny models."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from converter.samples import relative
from lorax.archs import by_name
from lorax.render.words import sentence
from lorax.safefile import open_tensors
from lorax.train import distill
from lorax.train.distill.measure import FAIR, GOOD, in_words
from lorax.transfer.types import no_progress
from lorax.ui.distilling import distil
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
