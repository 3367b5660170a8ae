"""Exact search equals the whole matrix sorted, whatever the blocks; strings come back as they went in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pool_world import unit
from torch import Tensor

from ogenlib.anchors import exact_top_k
from ogenlib.anchors.strings import Strings


def blocks(rows: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]


@pytest.mark.parametrize("size, query_block", [(1, 1), (7, 3), (50, 5), (1000, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_blocks_do_not_matter(size: int, query_block: int, dtype: torch.dtype) -> None:
    rows, queries = unit(50).to(dtype), 3 * unit(9, seed=1)
    every = (unit(9, seed=1) @ rows.float().T).sort(dim=1, descending=True)
    scores, found = exact_top_k(queries, blocks(rows, size), 6, query_block)
    torch.testing.assert_close(scores, every.values[:, :6], rtol=0, atol=1e-6)
    assert torch.equal(found, every.indices[:, :6])


def test_equal_rows_come_in_their_order() -> None:
    rows = torch.eye(4)[[1, 0, 0, 2, 0]]
    for size in (1, 2, 5):
        scores, found = exact_top_k(torch.eye(4)[:1], blocks(rows, size), 5)
        assert found.tolist() == [[1, 2, 4, 0, 3]] and scores.tolist() == [[1, 1, 1, 0, 0]]


def test_fewer_rows_than_asked_for() -> None:
    scores, found = exact_top_k(unit(2), blocks(unit(3, seed=2), 2), 10)
    assert scores.shape == found.shape == (2, 3)


def test_half_precision_regions_do_not_blur_it() -> None:
    rows, queries = unit(40), unit(3, seed=1)
    plain = exact_top_k(queries, blocks(rows, 16), 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = exact_top_k(queries, blocks(rows, 16), 5)
    assert torch.equal(plain[0], inside[0]) and torch.equal(plain[1], inside[1])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="k=0"):
        exact_top_k(unit(2), blocks(unit(3), 2), 0)
    with pytest.raises(ValueError, match="queries have 16 dimensions, the rows \\(8,\\)"):
        exact_top_k(unit(2), blocks(unit(3, 8), 2), 1)
    with pytest.raises(ValueError, match="finite"):
        exact_top_k(torch.full((1, 16), torch.nan), blocks(unit(3), 2), 1)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)))
def test_strings_come_back(texts: list[str]) -> None:
    packed = Strings.of(texts)
    assert list(packed) == texts and packed[:] == texts and len(packed) == len(texts)
    again = Strings(packed.data.clone(), packed.ends.clone())
    assert [again[i] for i in range(-len(texts), 0)] == texts
    with pytest.raises(IndexError):
        packed[len(texts)]
