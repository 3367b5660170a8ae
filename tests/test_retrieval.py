"""Recall by hand, against a plain loop over every order of ties, and laws of shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.evaluate.recall import Recalls, found_at, pair_up, recall_at, retrieval, short_name
from ogenlib.results.tables import RETRIEVAL_METRICS


def by_hand(similarity: Sequence[Sequence[float]], matches: set[tuple[int, int]], k: int) -> list[float]:
    """The share of all orders of the items, stable sort by similarity, in which a match is among the first k."""
    found = []
    for q, row in enumerate(similarity):
        hits = []
        for order in permutations(range(len(row))):
            nearest = sorted(order, key=lambda item: -row[item])[:k]
            hits.append(any((q, item) in matches for item in nearest))
        found.append(sum(hits) / len(hits))
    return found


def tall(values: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Three images and five texts; texts 0 and 1 are of image 0, 2 of image 1, 3 of images 1 and 2, 4 of image 2.
SIMILAR = [
    [0.1, 0.9, 0.8, 0.2, 0.3],  # found at 1 by its second text
    [0.7, 0.6, 0.5, 0.5, 0.9],  # its two texts tie at ranks 4 and 5
    [0.9, 0.8, 0.7, 0.1, 0.7],  # text 4 ties with text 2, which is not its own, at ranks 3 and 4
]
PAIRS = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3], [2, 3], [2, 4]])


def test_recalls_both_ways_counted_by_hand() -> None:
    images, texts = torch.eye(3, dtype=torch.float64), tall(SIMILAR).T
    got = retrieval(images, texts, PAIRS, (1, 2, 3, 4))
    # image 0 at 1; image 2 at 3 in one of the two orders, at 4 in both; image 1 at 4 in any order.
    assert got.image_to_text == pytest.approx({1: 100 / 3, 2: 100 / 3, 3: 50.0, 4: 100.0})
    # Columns: texts 1 and 3 find their image first, 4 second, 0 and 2 third.
    assert got.text_to_image == pytest.approx({1: 40.0, 2: 60.0, 3: 100.0, 4: 100.0})
    assert got.mean == pytest.approx((100 / 3 + 100 / 3 + 50 + 100 + 40 + 60 + 100 + 100) / 8)


@given(st.data())
def test_equals_every_order_of_ties(data: st.DataObject) -> None:
    q, g = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    levels = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=g, max_size=g), min_size=q, max_size=q))
    matches = {(i, data.draw(st.integers(0, g - 1))) for i in range(q)}
    matches |= {(i, j) for i in range(q) for j in range(g) if data.draw(st.booleans())}
    pairs = torch.tensor(sorted(matches, key=str)[::-1])
    ks = (1, 2, 3, 7)
    got = found_at(torch.eye(q), tall(levels).T.contiguous(), pairs, ks, chunk=data.draw(st.integers(1, 4)))
    assert got.shape == (q, len(ks)) and got.dtype == torch.float64
    for column, k in enumerate(ks):
        assert got[:, column].tolist() == pytest.approx(by_hand(levels, matches, k))
    assert bool((got.diff(dim=1) >= -1e-12).all())  # more items never find less
    assert bool((got[:, -1] == 1).all())  # k beyond the items finds all


def test_one_feature_for_all_is_chance_not_success() -> None:
    same = torch.ones(10, 4)
    pairs = torch.arange(10).repeat(2, 1).T
    assert recall_at(same, same, pairs, (1, 5, 10)) == pytest.approx({1: 10.0, 5: 50.0, 10: 100.0})


def test_neither_chunks_nor_orders_nor_repeats_change_a_number() -> None:
    draws = torch.Generator().manual_seed(0)
    images, texts = torch.randn(7, 3, generator=draws), torch.randn(20, 3, generator=draws)
    pairs = torch.stack([torch.arange(20) % 7, torch.arange(20)], 1)
    whole = retrieval(images, texts, pairs)
    assert 0 < whole.image_to_text[1] < 100
    for chunk in (1, 3, 7, 50):
        assert retrieval(images, texts, pairs, chunk=chunk) == whole
    shuffled = pairs[torch.randperm(20, generator=draws)]
    assert retrieval(images, texts, torch.cat([shuffled, pairs[:5]])) == whole
    order = torch.randperm(20, generator=draws)
    moved = torch.stack([pairs[order, 0], torch.arange(20)], 1)
    assert retrieval(images, texts[order], moved) == whole


def test_half_precision_is_counted_in_fp32() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.bfloat16)
    assert recall_at(images, images.float(), torch.tensor([[0, 0], [1, 1]]), (1,)) == {1: 100.0}


def test_identical_captions_are_one_text_or_several() -> None:
    captions = [["A dog.", "a  DOG.", "an animal"], ["an animal", "a cat"]]
    texts, pairs = pair_up(captions)
    assert texts == ("A dog.", "an animal", "a cat")
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]
    texts, pairs = pair_up(captions, identical="separate")
    assert texts == ("A dog.", "a  DOG.", "an animal", "an animal", "a cat")
    assert pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 3], [1, 4]]


def test_a_shared_caption_is_right_for_each_of_its_images() -> None:
    # One caption for both images, nearer to the first: as one text it finds a match at 1, as two one of them does not.
    images = torch.eye(2)
    row = torch.tensor([[0.9, 0.1]])
    texts, pairs = pair_up([["thing"], ["thing"]])
    assert retrieval(images, row, pairs, (1,)) == Recalls({1: 100.0}, {1: 100.0})
    texts, pairs = pair_up([["thing"], ["thing"]], identical="separate")
    got = retrieval(images, row.expand(2, -1), pairs, (1,))
    assert len(texts) == 2 and got == Recalls({1: 50.0}, {1: 50.0})  # a tie among two texts; the second finds image 0


def test_names_of_metrics() -> None:
    got = Recalls({1: 10.0, 5: 20.0, 10: 30.0}, {1: 40.0, 5: 50.0, 10: 60.0})
    assert tuple(got.as_row()) == RETRIEVAL_METRICS
    assert got.as_row()["text_to_image_r5"] == 50 and got.as_row()["mean_recall"] == 35
    assert short_name("image_to_text_r10") == "image→text @10" and short_name("mean_recall") == "mean"


FEATURES, MATCHES = torch.eye(3), torch.arange(3).repeat(2, 1).T


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FEATURES, torch.eye(4), MATCHES), r"\(3, 3\) and \(4, 4\)"),
        ((FEATURES[:0], FEATURES, MATCHES[:0]), "no queries"),
        ((FEATURES, FEATURES, MATCHES, (0, 1)), r"ks=\[0, 1\]"),
        ((FEATURES, FEATURES, MATCHES, ()), r"ks=\[\]"),
        ((FEATURES / 0, FEATURES, MATCHES), "queries hold numbers that are not finite"),
        ((FEATURES, FEATURES / 0, MATCHES), "items hold numbers that are not finite"),
        ((FEATURES, FEATURES, MATCHES.float()), r"pairs are \(3, 2\) torch.float32"),
        ((FEATURES, FEATURES, MATCHES[0]), "pairs are"),
        ((FEATURES, FEATURES, MATCHES + 1), "outside of 3 queries and 3 items"),
        ((FEATURES, FEATURES, MATCHES[:1]), r"2 queries match no item, the first rows \[1, 2\]"),
    ],
)
def test_bad_input_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall_at(*arguments)


def test_bad_chunks_and_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk=0"):
        recall_at(FEATURES, FEATURES, MATCHES, chunk=0)
    with pytest.raises(ValueError, match="image 1 has no caption"):
        pair_up([["a"], []])
    with pytest.raises(ValueError, match="one string, 'a dog'"):
        pair_up(["a dog"])
    with pytest.raises(ValueError, match="has no words"):
        pair_up([[" "]])
    with pytest.raises(ValueError, match="must be one of shared, separate"):
        pair_up([["a"]], identical="both")
