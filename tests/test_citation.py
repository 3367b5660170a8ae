"""CITATION.cff says what pyproject.toml and the methods' own files say."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed (mkdocs and transformers bring it)")

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("ogen/wrapper.py", "hosts/arf.py", "hosts/lipsum.py", "hosts/r_adapter.py")


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_has_what_the_format_asks_for(citation: dict[str, Any]) -> None:
    assert citation["cff-version"] == "1.2.0" and citation["message"]
    for work in (citation, *citation["references"]):
        assert work["type"] and work["title"] and work["authors"]
        assert all(set(author) in ({"name"}, {"family-names", "given-names"}) for author in work["authors"])


def test_it_is_about_this_version(citation: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [citation[key] for key in ("title", "version", "license")] == [
        project[key] for key in ("name", "version", "license")
    ]


@pytest.mark.parametrize("file", PAPERS)
def test_a_paper_is_cited_as_its_file_names_it(file: str, citation: dict[str, Any]) -> None:
    said = ast.get_docstring(ast.parse((ROOT / "ogenlib" / file).read_text(encoding="utf-8"))) or ""
    (paper,) = [reference for reference in citation["references"] if reference["url"] in said]
    assert f'"{paper["title"]}", {paper["authors"][0]["family-names"]} et al., {paper["conference"]["name"]}.' in said
