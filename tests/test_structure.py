"""The rules of the house, read off the source with `ast`: levels, imports, names, lengths."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS: dict[str, int] = {
    name: level
    for level, names in enumerate(
        (
            ("errors", "layers", "header", "version"),
            ("linalg", "digest", "safefile", "structure", "device", "workers", "cachelock"),
            ("spectral", "archs", "fileindex"),
            ("adapter", "checkpoint"),
            ("cache", "formats", "tensorindex"),
            ("bases", "cachefolder", "catalog", "library"),
            ("transfer", "bake"),
            ("export",),
            ("render",),
            ("actions",),
            ("__init__",),
            ("hosts",),
            ("retarget",),
            ("train",),
            ("ui",),
        )
    )
    for name in names
}
"""A module or package directly under ``lorax`` → its level. It imports only lower levels, or its own package."""

DIALECTS = {"kohya", "peft", "native"}


def is_alternative(package: str, module: str) -> bool:
    """One architecture, one adapter dialect, one host: such modules never import each other."""
    if package == "formats":
        return module in DIALECTS
    return (package == "archs" and module != "__init__") or (package == "hosts" and module not in {"__init__", "base", "detect"})


PURE = {"torch", "safetensors", "numpy", "lorax", *sys.stdlib_module_names}
"""What levels 0 to 7 may import at the top of a module; scipy only inside a function."""

HOST_MODULES = {"modules", "ldm_patched", "backend", "modules_forge", "comfy", "folder_paths", "sd_hijack"}
BARRED = {"converter", "tests", "scripts"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
MAX_LINES = 350
PUBLIC_PACKAGES = {("train", "distill"), ("train", "compare")}
"""Under ``lorax``: what needs the extra ``[train]`` is not among the names of ``lorax`` itself."""


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    inside_function: bool
    typing_only: bool


def imports(tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, with where they stand."""

    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            deeper = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, inside, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                dots = "." * child.level
                yield Import(dots + (child.module or ""), child.lineno, inside, typing)
                if child.module in ("lorax", "converter"):
                    yield from (Import(f"{child.module}.{alias.name}", child.lineno, inside, typing) for alias in child.names)
            else:
                yield from walk(child, deeper, for_types)

    return walk(tree, False, False)


def violations(path: str, source: str) -> list[str]:
    """What breaks the rules in the file `path` (relative to the root, with forward slashes)."""
    parts = path.removesuffix(".py").split("/")
    found = [f"{path}: '{part}' says nothing about what is in it" for part in parts if part in FORBIDDEN_NAMES]
    lines = source.count("\n") + 1
    if lines > MAX_LINES:
        found.append(f"{path}: {lines} lines, at most {MAX_LINES}: look for the two ideas in it")
    for item in imports(ast.parse(source)):
        if item.module.startswith("."):
            found.append(f"{path}:{item.line}: write the import out, '{item.module}' is relative")
            continue
        rules = lorax_rules if parts[0] == "lorax" else converter_rules if parts[0] == "converter" else no_rules
        found.extend(f"{path}:{item.line}: {broken}" for broken in rules(parts, item))
    return found


def no_rules(parts: list[str], item: Import) -> Iterator[str]:
    return iter(())


def lorax_rules(parts: list[str], item: Import) -> Iterator[str]:
    """For a module of the library."""
    here, top = parts[1], item.module.split(".")[0]
    level = LEVELS.get(here)
    if level is None:
        yield f"'{here}' has no level: add it to LEVELS"
        return
    if top in BARRED:
        yield f"running code never imports '{top}'"
    if top == "gradio" and here != "ui":
        yield "gradio belongs to lorax/ui"
    if top in HOST_MODULES and not (here == "hosts" and item.inside_function):
        yield f"'{top}' is a host's module: only in lorax/hosts, inside functions"
    if (
        level <= LEVELS["__init__"]
        and top not in PURE | HOST_MODULES | BARRED | {"gradio"}
        and not (top == "scipy" and item.inside_function)
    ):
        yield f"the library imports stdlib, torch, safetensors and numpy, not '{top}'"
    if top == "lorax" and item.module != "lorax":
        yield from level_rules(parts, item.module.split("."))
    if item.module == "lorax" and level < LEVELS["__init__"]:
        yield "import from the module, not from the public names above it"


def level_rules(parts: list[str], imported: list[str]) -> Iterator[str]:
    """Levels, and siblings."""
    here, there = parts[1], imported[1]
    if here == there:
        sibling = imported[2] if len(imported) > 2 else "__init__"
        mine = parts[2] if len(parts) > 2 else "__init__"
        if mine != sibling and is_alternative(here, mine) and is_alternative(here, sibling):
            yield f"siblings in lorax/{here} never import each other: '{sibling}'"
        return
    if there in LEVELS and LEVELS[there] > LEVELS[here]:
        yield f"level {LEVELS[here]} imports level {LEVELS[there]}: 'lorax.{there}'"
    elif there in LEVELS and LEVELS[there] == LEVELS[here]:
        yield f"'{here}' and '{there}' are of one level"


def converter_rules(parts: list[str], item: Import) -> Iterator[str]:
    """For a module of the converter: public names only, and the panels that it serves."""
    top, *rest = item.module.split(".")
    if top in {"tests", "scripts", "gradio"} | HOST_MODULES:
        yield f"the converter never imports '{top}'"
    if top == "lorax" and rest and not is_public(rest) and item.module != "lorax.ui.standalone":
        yield f"the converter imports public names: 'from lorax import …', not '{item.module}'"


def is_public(rest: list[str]) -> bool:
    """A name taken from ``lorax`` itself (no module of that name exists), or one of the packages with an ``__all__`` of their own."""
    return (len(rest) == 1 and rest[0] not in LEVELS) or tuple(rest) in PUBLIC_PACKAGES


def python_files() -> list[str]:
    folders = ("lorax", "converter", "tests", "scripts", "benchmarks")
    return sorted(p.relative_to(ROOT).as_posix() for folder in folders for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", python_files())
def test_file_keeps_the_rules(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_public_names_are_listed_and_exist() -> None:
    import lorax

    assert len(set(lorax.__all__)) == len(lorax.__all__)
    assert [name for name in lorax.__all__ if not hasattr(lorax, name)] == []
    assert [name for name in lorax.__all__ if name in LEVELS] == [], "a public name hides the module of that name"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("lorax/linalg.py", "from lorax.spectral import Span", "level 1 imports level 2"),
        ("lorax/archs/sd1.py", "from lorax.archs.sdxl import SDXL", "siblings in lorax/archs"),
        ("lorax/formats/kohya.py", "from lorax.formats.peft import read", "siblings in lorax/formats"),
        ("lorax/hosts/forge.py", "from lorax.hosts.a1111 import A1111", "siblings in lorax/hosts"),
        ("lorax/hosts/forge.py", "from modules import shared", "inside functions"),
        ("lorax/render/html.py", "import gradio as gr", "gradio belongs to lorax/ui"),
        ("lorax/transfer/run.py", "import converter", "never imports 'converter'"),
        ("lorax/spectral.py", "import scipy", "not 'scipy'"),
        ("lorax/bases.py", "from tqdm import tqdm", "not 'tqdm'"),
        ("lorax/bake.py", "from lorax.transfer import plan", "are of one level"),
        ("lorax/bake.py", "from lorax import errors", "public names above it"),
        ("lorax/new_thing.py", "import math", "has no level"),
        ("lorax/linalg.py", "from .errors import LoraxError", "is relative"),
        ("lorax/utils.py", "", "says nothing"),
        ("lorax/hosts/common/x.py", "", "says nothing"),
        ("lorax/linalg.py", "\n" * 400, "401 lines"),
        ("converter/cli.py", "from lorax.transfer import plan_transfer", "public names"),
        ("converter/cli.py", "from lorax import transfer", "public names"),
        ("converter/distill.py", "from lorax.train.distill.run import distill", "public names"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, expected: str) -> None:
    found = violations(path, source)
    assert found, f"not found: {expected}"
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lorax/transfer/atc.py", "def f():\n    from scipy.optimize import linprog"),
        ("lorax/hosts/forge.py", "def f():\n    from modules import shared"),
        ("lorax/hosts/forge.py", "from lorax.hosts.base import Host"),
        ("lorax/ui/tab.py", "import gradio as gr"),
        ("lorax/linalg.py", "import torch\nfrom lorax.errors import LoraxError"),
        ("lorax/__init__.py", "from lorax.render import to_html"),
        ("converter/distill.py", "from lorax.train.distill import distill"),
        ("converter/cli.py", "from lorax import plan_transfer\nfrom converter.samples import relative\nfrom tqdm import tqdm"),
    ],
)
def test_a_kept_rule_is_not_blamed(path: str, source: str) -> None:
    assert violations(path, source) == []
