"""Only what differs is said, in few words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.utils.differences import differences

CASES: dict[str, tuple[Any, Any, list[str]]] = {
    "equal": ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, []),
    "deep": ({"t": {"epochs": 2, "lr": 0.1}}, {"t": {"epochs": 3, "lr": 0.1}}, ["t.epochs: saved 2, asked 3"]),
    "missing": ({"a": 1}, {"b": 2}, ["a: saved 1, asked nothing", "b: saved nothing, asked 2"]),
    "inside a list": ({"n": ["cat", "dog"]}, {"n": ["cat", "hog"]}, ["n[1]: saved 'dog', asked 'hog'"]),
    "longer": ({"n": ["cat"]}, {"n": ["cat", "dog"]}, ["n: saved 1 entries, asked 2"]),
    "kind": ({"n": {"a": 1}}, {"n": None}, ["n: saved {'a': 1}, asked None"]),
    "text": ({"t": "x" * 200 + "a"}, {"t": "x" * 200 + "b"}, [f"t: saved ...'{'x' * 10}a', asked ...'{'x' * 10}b'"]),
}  # fmt: skip


@pytest.mark.parametrize("saved, asked, said", CASES.values(), ids=CASES)
def test_what_is_said(saved, asked, said):
    assert list(differences(saved, asked)) == said


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=90),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=3), VALUES)
def test_nothing_is_said_of_equal_values_and_something_of_others(document, other):
    assert list(differences(document, copy.deepcopy(document))) == []
    said = list(differences(document, {**document, "new": other}))
    assert len(said) == 1 and said[0].startswith("new: saved nothing") and len(said[0]) < 120
