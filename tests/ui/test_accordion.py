"""The accordion on a picture, the plain copy beside it, and the axes of the grid."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lorax.hosts.base import Wish, interface
from lorax.hosts.base.pictures import strengthened
from lorax.hosts.base.settings import METHODS
from lorax.ui import accordion, axes
from lorax.ui.accordion import AS_SET


def request(prompt: str = "a cat <lorax:ink:0.8>") -> Any:
    fields: dict[str, Any] = {"override_settings": {}, "extra_generation_params": {}, "styles": [], "script_args": [0], "comments": {}}
    return SimpleNamespace(prompt=prompt, n_iter=1, seed=-1, **fields)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(interface, "script_class", lambda: (object, "always"))
    monkeypatch.setattr(interface, "expect_pictures", lambda count: None)
    monkeypatch.setattr(interface, "interrupted", lambda: False)
    return accordion.script()()


def test_as_it_comes_it_changes_nothing(script: Any) -> None:
    p = request()
    script.before_process(p)
    assert (p.override_settings, p.extra_generation_params, strengthened(Wish("ink", 0.8, 0.8), p)) == ({}, {}, Wish("ink", 0.8, 0.8))
    script.postprocess(p, None)


def test_method_and_strength_are_of_this_picture(script: Any) -> None:
    p = request()
    script.before_process(p, True, METHODS["project"], 0.5, False)
    assert p.override_settings == {"lorax_method": METHODS["project"]}
    assert p.extra_generation_params == {"LoraX strength": 0.5}
    assert strengthened(Wish("ink", 0.8, 0.4, "copy"), p) == Wish("ink", 0.4, 0.2, "copy")


def test_off_copies(script: Any) -> None:
    p = request()
    script.before_process(p, False, METHODS["project"], 1.0, False)
    assert p.override_settings == {"lorax_method": METHODS["copy"]}
    assert p.extra_generation_params == {"LoraX follow": "False"}


def test_a_request_or_a_grid_that_says_otherwise_is_obeyed(script: Any) -> None:
    p = request()
    p.override_settings = {"lorax_method": "auto"}
    axes._strength(p, 0.25, [])
    script.before_process(p, True, METHODS["project"], 2.0, False)
    assert p.override_settings == {"lorax_method": "auto"}
    assert p.extra_generation_params == {"LoraX strength": 0.25}


def test_what_was_told_of_a_grids_last_picture_is_not_told_of_the_next(script: Any) -> None:
    shared = {"LoraX hashes": "ink: 1", "LoraX problems": "x", "LoraX strength": 0.5, "LoraX method": "always copy", "Script": "X/Y/Z plot"}
    p = request()
    p.extra_generation_params = shared
    script.before_process(p)
    assert p.extra_generation_params == {"Script": "X/Y/Z plot"}
    assert len(shared) == 5


def picture(*names: str) -> Any:
    lists = {n: list(names) for n in ("images", "infotexts", "all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds")}
    return SimpleNamespace(index_of_first_image=0, comments="".join(f"of {n}\n" for n in names[1:]), **lists)


def test_comparing_makes_the_plain_copy_from_the_same_seed(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def process_images(twin: Any) -> Any:
        script.before_process(twin, True, METHODS["project"], 0.5, True)
        asked.append(twin)
        made = picture("grid", "twin")
        made.index_of_first_image = 1
        script.postprocess(twin, made)
        return made

    monkeypatch.setattr(interface, "make_picture", process_images)
    p = request()
    script.before_process(p, True, METHODS["project"], 0.5, True)
    p.all_seeds, p.all_subseeds = [77], [78]
    processed = picture("first")
    script.postprocess(p, processed)
    assert len(asked) == 1, "the copy is not compared again"
    assert (asked[0].seed, asked[0].subseed, asked[0].override_settings) == (77, 78, {"lorax_method": METHODS["copy"]})
    assert asked[0].extra_generation_params == {"LoraX compared": "plain copy", "LoraX strength": 0.5}
    assert p.override_settings == {"lorax_method": METHODS["project"]}
    assert processed.images == processed.infotexts == ["first", "twin"]
    assert processed.comments == "LoRA-X: the last pictures are the plain copy, to compare with\nof twin\n"


@pytest.mark.parametrize(("prompt", "chosen"), [("a cat", 0), ("a cat <lorax:ink:1>", 3)])
def test_nothing_is_compared_without_an_adapter_or_in_a_grid(script: Any, prompt: str, chosen: int) -> None:
    p = request(prompt)
    p.script_args = [chosen]
    script.before_process(p, True, AS_SET, 1.0, True)
    script.postprocess(p, picture("first"))


def test_an_interrupted_picture_has_no_copy(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = request()
    script.before_process(p, True, AS_SET, 1.0, True)
    monkeypatch.setattr(interface, "interrupted", lambda: True)
    script.postprocess(p, picture("first"))


def test_pasting_brings_the_controls_back() -> None:
    params = {"Prompt": "a cat <lorax:ink:1>", "LoraX strength": "0.5"}
    accordion.paste("", params)
    assert params == {"Prompt": params["Prompt"], "LoraX strength": "0.5", "LoraX follow": "True", "LoraX method": AS_SET}
    other = {"Prompt": "a cat"}
    accordion.paste("", other)
    assert other == {"Prompt": "a cat"}


class AxisOption:
    def __init__(self, label: str, type: Any, apply: Any, confirm: Any = None, cost: float = 0.0, choices: Any = None) -> None:
        self.label, self.type, self.apply, self.confirm, self.choices = label, type, apply, confirm, choices


@pytest.fixture
def plot(monkeypatch: pytest.MonkeyPatch) -> dict[str, AxisOption]:
    module = SimpleNamespace(AxisOption=AxisOption, axis_options=[AxisOption("Seed", int, None)])
    pages: list[Any] = []
    monkeypatch.setattr(interface, "grid", lambda: module)
    monkeypatch.setattr(interface, "before_page", pages.append)
    monkeypatch.setattr(axes, "named", lambda host: {"ink": None, "clay": None})
    axes.install(None)  # type: ignore[arg-type]
    pages[0]()
    pages[0]()
    assert [o.label for o in module.axis_options] == ["Seed", "[LoRA-X] Method", "[LoRA-X] Strength", "[LoRA-X] Rank k", "[LoRA-X] Adapter"]
    return {o.label.removeprefix("[LoRA-X] "): o for o in module.axis_options}


def test_axes_are_there_once_and_do_their_work(plot: dict[str, AxisOption]) -> None:
    shared: dict[str, Any] = {}
    p, other = request(), request()
    p.override_settings = other.override_settings = shared
    plot["Method"].apply(p, "project", [])
    plot["Rank k"].apply(p, 64, [])
    assert p.override_settings == {"lorax_method": METHODS["project"], "lorax_rank": 64}
    assert shared == {}, "the cells of a grid share what the first request had"
    assert plot["Adapter"].choices() == ["None", "clay", "ink"]


@pytest.mark.parametrize(
    ("prompt", "name", "becomes"),
    [
        ("a <lorax:ink:0.8> cat <lora:ink:1>", "clay", "a <lorax:clay:0.8> cat <lora:ink:1>"),
        ("a cat", "clay", "a cat <lorax:clay:1>"),
        ("a <lorax:ink:0.8:te=1> cat", "None", "a cat"),
        ("a <lorax:ink:1>", r"\1", r"a <lorax:\1:1>"),
    ],
)
def test_the_axis_of_adapters(plot: dict[str, AxisOption], prompt: str, name: str, becomes: str) -> None:
    p = request(prompt)
    plot["Adapter"].apply(p, name, [])
    assert p.prompt == becomes


def test_a_value_that_means_nothing_stops_the_grid_before_its_first_picture(plot: dict[str, AxisOption]) -> None:
    plot["Method"].confirm(None, ["auto", "copy"])
    with pytest.raises(RuntimeError, match=r"no method is called 'projekt'\. Did you mean"):
        plot["Method"].confirm(None, ["projekt"])
    with pytest.raises(RuntimeError, match="no adapter is called 'inc'"):
        plot["Adapter"].confirm(None, ["None", "inc"])
    with pytest.raises(RuntimeError, match=r"0 .* or more"):
        plot["Rank k"].confirm(None, [-1])
