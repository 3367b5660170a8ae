"""Few-shot picks and base-to-new halves are those of the released CoOp."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.data import ImageSet, Item, base_new_split, few_shot
from ogenlib.data.split import stratified_rows


def coop_picks(rows, shots, seed):
    """The released rule in its own terms: the module-level generator, seeded, and a dict of lists."""
    state = random.getstate()
    random.seed(seed)
    tracker = defaultdict(list)
    for row in rows:
        tracker[row[1]].append(row)
    picked = []
    for members in tracker.values():
        picked += random.sample(members, shots) if len(members) >= shots else members
    random.setstate(state)
    return picked


rows_strategy = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(
    lambda labels: [(f"{i}.jpg", label) for i, label in enumerate(labels)]
)


@given(rows_strategy, st.integers(1, 8), st.integers(0, 5))
def test_few_shot_picks_what_coop_picks(rows, shots, seed):
    assert few_shot(rows, shots, seed) == coop_picks(rows, shots, seed)


@given(rows_strategy, st.integers(1, 8), st.integers(0, 5))
def test_few_shot_of_an_image_set_is_few_shot_of_its_rows(rows, shots, seed):
    images = ImageSet([Item(path, label) for path, label in rows], list("abcde"))
    picked = few_shot(images, shots=shots, seed=seed)
    assert isinstance(picked, ImageSet) and picked.classnames == images.classnames
    assert [(item.key, item.label) for item in picked] == coop_picks(rows, shots, seed)


def test_known_picks_of_seed_one():
    """Written out, so that a change of the rule in both places is seen too."""
    rows = [(f"{name}{i}", name) for name in "ba" for i in range(6)]
    assert few_shot(rows, 3, 1) == [(p, p[0]) for p in ("b1", "b4", "b0", "a2", "a0", "a3")]


def test_few_shot_leaves_the_global_generator_alone_and_keeps_the_type():
    rows = tuple((f"{i}", i % 2) for i in range(10))
    state = random.getstate()
    picked = few_shot(rows, 2, 1)
    assert random.getstate() == state
    assert isinstance(picked, tuple)
    assert few_shot(rows, 2, 1) == picked != few_shot(rows, 2, 2)


def test_few_shot_with_too_few_images_takes_each_once():
    rows = [("a0", "a"), ("b0", "b"), ("b1", "b"), ("b2", "b")]
    picked = few_shot(rows, 2, 0)
    assert Counter(label for _, label in picked) == {"a": 1, "b": 2}
    assert few_shot(rows, 99, 0) == rows


def test_few_shot_refuses_what_it_cannot_do():
    for shots in (0, -1):
        with pytest.raises(ValueError, match=f"shots is {shots}"):
            few_shot([("a", 0)], shots, 1)
    with pytest.raises(TypeError):
        few_shot([("a", 0)], 1.5, 1)
    with pytest.raises(TypeError, match=r"row 0 is 'a.png'.*\(path, label\)"):
        few_shot(["a.png"], 1, 1)


@given(st.integers(2, 60))
def test_base_is_the_first_half_rounded_up(n):
    names = [f"name {i}" for i in range(n)]
    split = base_new_split(names)
    assert len(split.base) == math.ceil(n / 2)
    assert list(split.base + split.new) == names


def test_base_new_split_needs_two_different_names():
    with pytest.raises(ValueError, match="at least 2"):
        base_new_split(["cat"])
    with pytest.raises(ValueError, match="'cat' and 'Cat'"):
        base_new_split(["cat", "dog", "Cat"])
    with pytest.raises(TypeError, match="the one string"):
        base_new_split("cats")


@given(st.lists(st.integers(2, 30), min_size=1, max_size=4), st.floats(0.01, 0.99), st.integers(0, 9))
def test_stratified_rows_share_each_class_and_ignore_row_order(sizes, fraction, seed):
    rows = [(str(c), f"{c}/{i}") for c, size in enumerate(sizes) for i in range(size)]
    chosen = stratified_rows([c for c, _ in rows], [k for _, k in rows], fraction, seed)
    counts = Counter(rows[i][0] for i in chosen)
    for c, size in enumerate(sizes):
        assert counts[str(c)] == min(max(round(size * fraction), 1), size - 1)
    mirrored = rows[::-1]
    again = stratified_rows([c for c, _ in mirrored], [k for _, k in mirrored], fraction, seed)
    assert {rows[i] for i in chosen} == {mirrored[i] for i in again}


def test_stratified_rows_depend_on_the_seed_and_refuse_single_images():
    labels, keys = ["a"] * 30, [f"{i:02d}" for i in range(30)]
    assert stratified_rows(labels, keys, 0.3, 0) != stratified_rows(labels, keys, 0.3, 1)
    assert stratified_rows(labels, keys, 0, 0) == set()
    assert stratified_rows(labels, keys, 1, 0) == set(range(30))
    with pytest.raises(ValueError, match=r"class 'b' has a single image \(only\)"):
        stratified_rows(["a", "a", "b"], ["1", "2", "only"], 0.3, 0)
    with pytest.raises(ValueError, match="test_fraction is 30"):
        stratified_rows(labels, keys, 30, 0)
