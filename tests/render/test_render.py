"""Reports: exact JSON fields, nothing from a file becomes markup, pages stand alone and stay light."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import made_up
import pytest

from lorax.layers import Component, LayerId
from lorax.render import index_to_html, plan_to_json, plan_to_text, to_html, to_json, to_markdown, to_svg, to_text
from lorax.render.heatmap import Cell, heatmap
from lorax.transfer.types import LayerScore, TransferReport

FIELDS = {"method", "output", "modules_in", "modules_out", "unmatched", "energy_kept", "atc_left", "atc_right", "seconds", "layers"}
LAYER_FIELDS = {
    *("source", "target", "action", "reason", "similarity_left", "similarity_right"),
    *("chance_left", "chance_right", "energy_kept", "rank"),
}
PAIRS = [("sd1", "sd1", "copy"), ("sdxl", "sdxl", "project"), ("sdxl", "ssd-1b", "project"), ("ssd-1b", "sdxl", "copy")]


class Strict(HTMLParser):
    """Every element is closed, none is a script, and nothing is fetched."""

    VOID = frozenset({"meta", "input", "br", "hr", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.links = False
        """A page of links may have links."""
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        fetched = [value for name, value in attrs if name == "src" or (name == "href" and not self.links)]
        assert not fetched
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Strict:
    reader = Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: " to ".join(pair[:2]))
def report(request: pytest.FixtureRequest) -> TransferReport:
    source, target, method = request.param
    return made_up.report(source, target, method, conv=source == target)


def nasty() -> TransferReport:
    """A report in which every text that can come from a file is markup."""
    base = made_up.report()
    plan = replace(
        base.plan,
        adapter_name=made_up.NASTY,
        source_name=made_up.NASTY,
        target_name=made_up.NASTY,
        verdict_reason=made_up.NASTY,
        method_reason=made_up.NASTY,
        notes=(made_up.NASTY,),
        decisions=(*base.plan.decisions, replace(base.plan.decisions[0], action="skip", reason=made_up.NASTY)),
    )
    return replace(base, plan=plan, unmatched=((made_up.NASTY, made_up.NASTY),), output=made_up.NASTY, extra={made_up.NASTY: made_up.NASTY})


def test_json_has_the_fields_of_the_contract(report: TransferReport) -> None:
    document = to_json(report)
    assert document.keys() >= FIELDS
    assert all(layer.keys() >= LAYER_FIELDS for layer in document["layers"])
    assert len(document["layers"]) == len(report.results)
    assert document["unmatched"] == [{"key": key, "reason": reason} for key, reason in report.unmatched]
    json.dumps(document, allow_nan=False)


def test_a_plan_has_the_same_fields_with_null_for_results(report: TransferReport) -> None:
    document = plan_to_json(report.plan, report.unmatched)
    assert document.keys() | {"extra"} == to_json(report).keys()
    assert [document[name] for name in ("output", "modules_out", "energy_kept", "seconds")] == [None] * 4
    assert all(layer["energy_kept"] is None and layer["rank"] is None for layer in document["layers"])


def test_not_a_number_never_reaches_json() -> None:
    base = made_up.report()
    odd = replace(base.results[0].decision, score=LayerScore(float("nan"), float("inf"), 0.1, 0.1, float("nan"), False))
    first = replace(base.results[0], decision=odd, energy_in=float("nan"))
    broken = replace(base, results=(first, *base.results[1:]), plan=replace(base.plan, cosine=float("nan")))
    document = to_json(broken)
    json.dumps(document, allow_nan=False)
    assert document["layers"][0]["similarity_left"] is None
    parsed(to_html(broken))


def test_page_is_sound_and_light(report: TransferReport) -> None:
    page = to_html(report)
    reader = parsed(page)
    assert "script" not in reader.seen
    assert len(page.encode()) < 1_500_000
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", page)
    assert "NaN" not in page
    assert "None" not in page


def test_page_says_what_happened(report: TransferReport) -> None:
    page = " ".join(parsed(to_html(report)).text)
    assert report.plan.verdict_reason[1:] in page
    assert f"{report.modules_out} of {report.modules_in}" in page
    for group in {d.reason for d in report.plan.decisions}:
        assert group in page
    assert "lora_unet_something_else.lora_down.weight" in page


def test_markup_from_a_file_is_shown_as_text() -> None:
    page = to_html(nasty())
    reader = parsed(page)
    assert "script" not in reader.seen
    assert "\x1b" not in page
    assert '<script>alert("x")</script>' in "".join(reader.text)


def test_markup_in_markdown_and_terminal_is_plain() -> None:
    written = to_markdown(nasty())
    assert "<script>" not in written
    assert re.search(r"(?<!\\)\|\*", written) is None
    for text in (to_text(nasty()), plan_to_text(nasty().plan)):
        assert "\x1b" not in text


def test_markup_in_an_index_and_in_a_picture_is_shown_as_text() -> None:
    page = index_to_html(made_up.NASTY, [made_up.NASTY], [(made_up.NASTY, [("a.html", nasty())])])
    reader = Strict()
    reader.links = True
    reader.feed(page)
    assert "script" not in reader.seen
    picture = ElementTree.fromstring(to_svg(nasty()))
    assert "script" not in {element.tag.rpartition("}")[2] for element in picture.iter()}
    assert '<script>alert("x")</script>' in "".join(picture.itertext())


def test_a_line_break_in_a_name_makes_no_new_line() -> None:
    base = made_up.report()
    forged = replace(base, plan=replace(base.plan, adapter_name="a\nwrote  /somewhere/else"))
    assert len(to_text(forged).splitlines()) == len(to_text(base).splitlines())


def test_every_target_layer_has_a_cell(report: TransferReport) -> None:
    from lorax.render.html import similarity_cells

    cells = similarity_cells(report)
    assert len(cells) == sum(d.target is not None for d in report.plan.decisions)
    picture = ElementTree.fromstring(heatmap(cells, "map", standalone=True))
    spots = [
        (group.get("transform"), cell.get("x"), cell.get("y"))
        for group in picture.iter("{http://www.w3.org/2000/svg}g")
        for cell in group.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(spots) == len(cells)
    assert len(set(spots)) == len(spots), "two layers share a cell"


def test_layers_of_unknown_names_get_cells_of_their_own() -> None:
    names = ("conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "something.new", "conv_out")
    picture = heatmap([Cell(LayerId(Component.UNET, n), 0.5, n) for n in names], "map", standalone=True)
    cells = re.findall(r'<rect class="h\d" x="([\d.]+)" y="([\d.]+)"', picture)
    assert len(set(cells)) == len(names)


def test_text_names_the_file_that_was_written(report: TransferReport) -> None:
    text = to_text(report)
    assert text.splitlines()[-1].split() == ["wrote", report.output]
    assert "nothing was written" in plan_to_text(report.plan)
