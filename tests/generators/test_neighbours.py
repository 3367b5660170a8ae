"""Class neighbours against brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.generators import class_neighbours


def brute(similarity: list[list[float]], k: int, exclude_self: bool) -> list[list[int]]:
    found = []
    for i, row in enumerate(similarity):
        candidates = [j for j in range(len(row)) if not (exclude_self and i == j)]
        found.append(sorted(candidates, key=lambda j: (-row[j], j))[:k])
    return found


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.integers(2, 9), st.integers(2, 8), st.integers(0, 99), st.data())
def test_text_neighbours_are_those_of_brute_force(u: int, c: int, d: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, c))
    query, known = 3 * rows(u, d, seed), rows(c, d, seed + 100)
    indices, similarities = class_neighbours(query, known, k)
    cosine = F.cosine_similarity(query[:, None], known[None], dim=-1)
    assert indices.tolist() == brute(cosine.tolist(), k, False)
    assert torch.allclose(similarities, cosine.gather(1, indices), atol=1e-6)


@pytest.mark.parametrize("by", ["text", "image", "both"])
def test_known_classes_leave_themselves_out(by: str) -> None:
    known, means = rows(9, 6, 0), rows(9, 7, 1)
    indices, _ = class_neighbours(known, known, 3, image_means=means, by=by, exclude_self=True)
    text = F.cosine_similarity(known[:, None], known[None], dim=-1)
    image = F.cosine_similarity(means[:, None], means[None], dim=-1)
    space = {"text": text, "image": image, "both": (text + image) / 2}[by]
    assert indices.tolist() == brute(space.tolist(), 3, True)
    assert all(i not in row for i, row in enumerate(indices.tolist()))


def test_the_spaces_differ() -> None:
    known, means = rows(9, 6, 0), rows(9, 7, 1)
    found = [
        class_neighbours(known, known, 3, image_means=means, by=by, exclude_self=True)[0].tolist()
        for by in ("text", "image", "both")
    ]
    assert found[0] != found[1] != found[2] != found[0]


def test_a_pair_of_image_means_serves_other_classes() -> None:
    means, query_means = rows(9, 7, 1), rows(2, 7, 2)
    indices, _ = class_neighbours(rows(2, 6, 3), rows(9, 6, 0), 2, image_means=(query_means, means), by="image")
    cosine = F.cosine_similarity(query_means[:, None], means[None], dim=-1)
    assert indices.tolist() == brute(cosine.tolist(), 2, False)


def test_ties_go_to_the_lower_index() -> None:
    known = torch.eye(2).repeat(20, 1)  # rows 0, 2, 4, ... are equal
    indices, _ = class_neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), known, 5)
    assert indices.tolist() == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_all_others_can_be_neighbours() -> None:
    indices, similarities = class_neighbours(rows(4, 3, 0), rows(4, 3, 0), 3, exclude_self=True)
    assert [sorted(row) for row in indices.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert torch.isfinite(similarities).all()


BAD = {
    "by": ({"by": "sound"}, "by='sound': must be one of text, image, both"),
    "k": ({"k": 0}, "k=0"),
    "k-large": ({"k": 6}, "k=6 neighbours asked for and 5 known classes.*pass k=5 or less"),
    "k-self": ({"k": 5, "query": rows(5, 4, 0), "exclude_self": True}, "k=5 .* and 4 known"),
    "self": ({"exclude_self": True}, "2 queries and 5 known"),
    "width": ({"query": rows(2, 3, 0)}, "query is 3 wide and 4 is needed"),
    "nan": ({"known": torch.full((5, 4), torch.nan)}, "known: row 0 holds NaN"),
    "no-means": ({"by": "image"}, "unknown classes have no images; use by='text'"),
    "one-mean": ({"by": "both", "image_means": rows(5, 4, 0)}, "unknown classes have no images; use by='text'"),
    "few-means": ({"by": "image", "image_means": (rows(2, 4, 0), rows(4, 4, 0))}, "4 image means for 5 known"),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_refusals(change: dict, message: str) -> None:
    given_: dict = {"query": rows(2, 4, 1), "known": rows(5, 4, 2), "k": 2, **change}
    with pytest.raises(ValueError, match=message):
        class_neighbours(given_.pop("query"), given_.pop("known"), given_.pop("k"), **given_)


def test_a_single_class_has_no_neighbour() -> None:
    with pytest.raises(ValueError, match="no neighbour but itself"):
        class_neighbours(rows(1, 4, 0), rows(1, 4, 0), 1, exclude_self=True)
