"""The page of the API finds every public name, in the packages and under the headings that readers know."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

griffe = pytest.importorskip("griffe", reason="extra docs is not installed (mkdocstrings-python)")

ROOT = Path(__file__).resolve().parents[1]
READING = ROOT / "docs" / "site" / "reading.py"
SHOWN = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def code() -> Any:
    """What mkdocstrings reads: the library by its dotted names."""
    extensions = griffe.load_extensions(str(READING))
    loader = griffe.GriffeLoader(extensions=extensions, search_paths=[str(ROOT)], docstring_parser="google")
    loader.load("ogenlib", try_relative_path=False)
    loader.resolve_aliases(implicit=False, external=False)
    return loader.modules_collection


@pytest.fixture(scope="module")
def sectioned() -> Callable[[str, str, set[str]], str]:
    spec = importlib.util.spec_from_file_location("reading", READING)
    assert spec and spec.loader
    module: types.ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.sectioned


@pytest.mark.parametrize("package", [name for name in SHOWN if name.count(".") < 2])
def test_every_public_name_is_shown(package: str, code: Any) -> None:
    """A name without a docstring, or that a module of the package hides, would be missing on the page."""
    module = importlib.import_module(package)
    things = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
    names = [f"{package}.{name}" for name, thing in things.items() if not inspect.ismodule(thing)]
    lost = [name for name in names if code[name].is_module or not code[name].has_docstring]
    assert [name for name in lost if f"{name}.{name.rpartition('.')[2]}" not in SHOWN] == []


def test_sections_are_read(code: Any) -> None:
    def section(name: str, kind: str) -> list[str]:
        return [entry.name for s in code[name].docstring.parsed if s.kind.value == kind for entry in s.value]

    assert section("ogenlib.TrainConfig", "attributes")[:2] == ["epochs", "batch_size"]
    assert section("ogenlib.FeatureBank", "attributes")[:2] == ["features", "labels"]
    assert section("ogenlib.load_dataset", "parameters") == ["source", "root", "skip_bad", "options"]


def test_a_list_of_names_becomes_a_section(sectioned: Callable[[str, str, set[str]], str]) -> None:
    text = "Words.\n\na: one,\n    and more.\nb: two.\nRaises ValueError."
    expected = "Words.\n\n\nArgs:\n    a: one,\n        and more.\n    b: two.\n\nRaises ValueError."
    assert sectioned(text, "Args", {"a", "b"}) == expected
    for other in ("Words: a: no entry.", "Args:\n    a: has its heading.", "Notation: `B` images."):
        assert sectioned(other, "Args", {"a", "Words_"}) == other
