"""CONTRIBUTING.md shows the floors as they are, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path

from test_architecture import FLOORS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_floors_are_those_that_are_tested() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", TEXT, re.MULTILINE)
    assert [(int(floor), tuple(re.findall(r"`([\w.]+)`", rooms))) for floor, rooms in rows] == list(enumerate(FLOORS))


def test_files_and_links_are_there() -> None:
    links = [target for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    files = re.findall(r"`([\w.-]+/[\w./-]+)`", TEXT)
    assert links and files
    assert [
        name for name in (*links, *files) if not any((root / name).exists() for root in (ROOT, ROOT / "ogenlib"))
    ] == []


def test_make_explains_its_targets_and_those_that_are_named_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(re.findall(r"[\w-]+", re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[0]))
    assert re.findall(r'^\t@echo "make ([a-z-]+) ', makefile, re.MULTILINE) == [t for t in targets if t != "help"]
    assert set(re.findall(r"^make ([a-z-]+)", TEXT, re.MULTILINE)) < set(targets)


def test_ci_takes_its_commands_from_the_makefile() -> None:
    stages = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "from_makefile TEST" in stages and "from_makefile TYPED" in stages
    assert "-m pytest" not in stages and re.findall(r"-m mypy (\S+)", stages) == ["$typed"]
