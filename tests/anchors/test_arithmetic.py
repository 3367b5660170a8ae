"""The arithmetic of docs/anchors.md: every cell of its table, from the sizes that the code has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ogenlib.anchors.faiss_index import CODE_BYTES, GRAPH_FROM, TRAIN_PER_LIST, choose_kind, choose_lists

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "anchors.md").read_text(encoding="utf-8")
ROWS = (1_000_000, 100_000_000, 2_000_000_000)
DIM, QUERIES = 512, 16_000
CPU, GPU, DISK = 100e9, 50e12, 2e9
HALF, ROW_ID, FLOP = 2 * DIM, 8, 2 * DIM  # bytes of a row's features and number; flop of one product
UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "GB": 1e9, "TB": 1e12, "": 1}
TABLE: dict[str, Callable[[int], float]] = {
    "features of the images on disk": lambda n: HALF * n,
    "the same with those of the texts": lambda n: 2 * HALF * n,
    "keys and captions on disk": lambda n: 100 * n,
    "exact search: reading the images' rows once": lambda n: HALF * n / DISK,
    "exact search, Q = 16,000: products on a CPU": lambda n: FLOP * QUERIES * n / CPU,
    "the same on a GPU": lambda n: FLOP * QUERIES * n / GPU,
    "lists `L`": choose_lists,
    "index in memory, half precision": lambda n: (HALF + ROW_ID) * n,
    "index in memory, 64-byte codes": lambda n: (CODE_BYTES + ROW_ID) * n,
    "training of the lists on a CPU": lambda n: 10 * TRAIN_PER_LIST * choose_lists(n) ** 2 * FLOP / CPU,
    "finding each row's list, all compared, on a CPU": lambda n: FLOP * choose_lists(n) * n / CPU,
    "the same by a graph over the lists": lambda n: 3e6 * n / CPU,
}


def cells() -> dict[str, list[str]]:
    """First column -> the three sizes' cells."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    start = next(i for i, line in enumerate(lines) if line[2:] == ["1 million", "100 million", "2 billion"])
    return {line[0]: line[2:] for line in lines[start + 2 :] if len(line) == 5}


def test_every_row_is_worked_out_here() -> None:
    assert list(cells()) == list(TABLE)


@pytest.mark.parametrize("what", TABLE)
def test_a_row_is_the_arithmetic_of_its_sizes(what: str) -> None:
    for count, cell in zip(ROWS, cells()[what], strict=True):
        if cell == "not needed":
            assert choose_lists(count) < GRAPH_FROM
            continue
        found = re.fullmatch(r"([\d,.]+) ?(\w*)", cell)
        assert found is not None, cell
        digits, unit = found[1].replace(",", ""), found[2]
        decimals = len(digits.partition(".")[2])
        assert f"{TABLE[what](count) / UNITS[unit]:.{decimals}f}" == digits, (what, cell)


def test_the_text_around_it() -> None:
    assert "1,032 bytes a row" in PAGE and HALF + ROW_ID == 1032 and CODE_BYTES + ROW_ID == 72
    assert [choose_kind(n) for n in ROWS] == ["ivf", "ivf-pq", "ivf-pq"]
    minutes, hours, days = ROWS[0] / 1000 / 60, ROWS[1] / 1000 / 3600, ROWS[2] / 1000 / 86400
    assert f"encoding takes {minutes:.0f} minutes, {hours:.0f} hours\n  and {days:.0f} days" in PAGE
