"""Comparing two bases says what a transfer between them says."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.samples import Widths
from lorax.checkpoint import open_checkpoint
from lorax.formats import read_adapter
from lorax.render.similarity import similarity_to_html, similarity_to_json, similarity_to_text
from lorax.render.words import RELATIONS, VERDICTS
from lorax.transfer.compare import compute_similarity
from lorax.transfer.plan import plan_transfer
from tests.families import Family, write_family, write_lora
from tests.transfer.rebased import narrowing, scrambling, write_rebased

WIDTHS = Widths(channels=(16, 32, 48, 48), groups=4, text1=16, text2=16, vocabulary=16)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """With ``scrambled`` and ``narrowed``, which are the source in other channels."""
    family = write_family(tmp_path_factory.mktemp("compared"), "bk-sdm-base", "bk-sdm-tiny", WIDTHS)
    with open_checkpoint(family["source"]) as source:
        write_rebased(family["scrambled"], source, scrambling(source, 4, lambda n: 8))
        write_rebased(family["narrowed"], source, narrowing(source, 3, 4))
    return family


EXPECTED = {
    "source": "same base",
    "fine": "should work",
    "pruned": "weak",
    "other": "not transferable",
    "scrambled": "should work",
    "narrowed": "weak",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_comparison_and_a_transfer_speak_alike(family: Family, tmp_path: Path, name: str) -> None:
    path = write_lora(tmp_path / "style.safetensors", family)
    with open_checkpoint(family["source"]) as source, open_checkpoint(family[name]) as target:
        report = compute_similarity(source, target)
        plan = plan_transfer(read_adapter(path, source.arch), source, target)
    assert plan.verdict == EXPECTED[name]
    assert (report.judgement.verdict, report.judgement.reason) == (plan.verdict, plan.verdict_reason)
    assert RELATIONS[report.judgement.verdict][1] == VERDICTS[plan.verdict][1], "one tone"
    told = similarity_to_json(report)
    assert told["verdict_reason"] == plan.verdict_reason
    assert told["aligned"] == (name in ("scrambled", "narrowed"))
    for form in (similarity_to_text, similarity_to_html):
        assert RELATIONS[plan.verdict][0] in form(report)
