"""The example in one file: short, free of ogenlib's own parts, and it runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from processes import python

FILE = Path(__file__).resolve().parents[1] / "examples" / "ogen_in_one_file.py"


def test_it_is_short_and_writes_the_method_out() -> None:
    source = FILE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 250
    imported = {
        (a.name if isinstance(n, ast.Import) else n.module or "").split(".")[0]
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    assert imported <= {"__future__", "argparse", "math", "collections", "dataclasses", "torch", "ogenlib"}
    used = set(re.findall(r"\bog\.([\w.]+)", source))
    assert used == {"load_backbone", "load_dataset", "base_new_split", "few_shot", "FeatureBank.extract"}


@pytest.mark.slow
def test_it_prints_before_and_after() -> None:
    header, *rows = python(str(FILE), "--shots", "2", "--epochs", "2").splitlines()
    assert header.split() == ["base", "new", "H"]
    assert [row[:14].strip() for row in rows] == ["before", "host alone", "host + OGEN"]
    for row in rows:
        base, new, h = (float(x) for x in row[14:].split())
        assert abs(h - 2 * base * new / (base + new)) < 0.2
    assert len({row[14:] for row in rows}) == 3
