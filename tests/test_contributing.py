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
