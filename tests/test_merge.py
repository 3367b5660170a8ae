"""Merging state dicts: numbers worked out by hand, laws that hold for any states, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ogenlib.merge import states as merge
from ogenlib.merge.states import alpha_sweep, best_alpha, fisher_merge, greedy_soup, interpolate, soup

MASK = torch.tensor([[0.0, -math.inf], [0.0, 0.0]])


def state(value: float, count: int = 3) -> dict[str, Tensor]:
    return {"w": torch.tensor([value, 1.0]), "mask": MASK.clone(), "count": torch.tensor(count)}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def test_interpolation_by_hand_and_exact_ends() -> None:
    a, b = state(2.0), state(6.0)
    assert same(interpolate(a, b, 0.25), state(3.0))
    assert same(interpolate(a, b, 0), a) and same(interpolate(a, b, 1), b)
    made = interpolate(a, b, 1)
    made["w"].zero_()
    assert b["w"][0] == 6 and a["w"][0] == 2  # copies


@given(st.floats(0, 1), st.floats(-1e3, 1e3))
def test_what_is_equal_stays_bit_for_bit(alpha: float, value: float) -> None:
    a = {"w": torch.tensor([value, 0.1]), "mask": MASK}
    assert same(interpolate(a, {n: t.clone() for n, t in a.items()}, alpha), a)


def test_half_precision_is_summed_wide_and_comes_back() -> None:
    states = [{"w": torch.tensor([1.0 + i / 256], dtype=torch.bfloat16)} for i in (0, 2, 4, 6)]
    merged = soup(states)["w"]
    assert merged.dtype == torch.bfloat16
    assert merged.item() == torch.tensor(1 + 3 / 256).bfloat16().item()


def test_soups_by_hand() -> None:
    states = [state(1.0), state(2.0), state(6.0)]
    assert soup(states)["w"].tolist() == [3, 1]
    assert soup(states, [1, 0, 3])["w"].tolist() == [4.75, 1]
    assert soup(states, [0, 2, 0])["w"].tolist() == [2, 1]


def test_the_greedy_soup_keeps_what_does_not_harm() -> None:
    """Accuracy is highest at 3: alone 2.5, 4 and 9 score best to worst; the mean of the first two is better still."""
    asked: list[float] = []

    def score(one: Mapping[str, Tensor]) -> float:
        asked.append(one["w"][0].item())
        return -abs(one["w"][0].item() - 3)

    found = greedy_soup([state(9.0), state(4.0), state(2.5), state(3.25)], score)
    assert asked[:4] == [9, 4, 2.5, 3.25]
    # 3.25 is the best; with 2.5 it is 2.875, nearer to 3; with 4 then 3.25, farther; with 9 then 4.92
    assert found.kept == (3, 2) and found.state["w"][0] == 2.875 and found.score == -0.125
    assert asked[4:] == [2.875, 3.25, pytest.approx(14.75 / 3)]
    assert found.scores == (-6, -1, -0.5, -0.25)
    equal = greedy_soup([state(1.0), state(5.0)], lambda one: 7.0)
    assert equal.kept == (0, 1) and equal.state["w"][0] == 3  # no worse is kept


def test_fisher_weights_by_hand() -> None:
    states = [
        {"w": torch.tensor([0.0, 0.0, 2.0]), "b": torch.tensor([1.0])},
        {"w": torch.tensor([8.0, 8.0, 6.0]), "b": torch.tensor([3.0])},
    ]
    fishers = [{"w": torch.tensor([3.0, 0.0, 0.0])}, {"w": torch.tensor([1.0, 5.0, 0.0])}]
    merged = fisher_merge(states, fishers)
    # 8/4; all information is the second's but for the floor; none anywhere: the plain mean; a buffer: the plain mean
    assert merged["w"].tolist() == pytest.approx([2, 8, 4]) and merged["b"].tolist() == [2]
    weighted = fisher_merge(states, fishers, [0.25, 0.75])
    assert weighted["w"].tolist() == pytest.approx([4, 8, 5]) and weighted["b"].tolist() == [2.5]
    even = [{"w": torch.full((3,), 4.0)}] * 2
    torch.testing.assert_close(fisher_merge(states, even), soup(states))


def test_a_sweep_scores_every_alpha_and_the_smallest_of_the_best_wins() -> None:
    curve = alpha_sweep(state(0.0), state(4.0), lambda one: -abs(one["w"][0].item() - 2), [0, 0.25, 0.75, 1])
    assert curve == [(0, -2), (0.25, -1), (0.75, -1), (1, -2)] and best_alpha(curve) == 0.25
    assert len(alpha_sweep(state(0.0), state(1.0), lambda one: 0.0)) == len(merge.ALPHAS) == 11
    with pytest.raises(ValueError, match="curve is empty"):
        best_alpha([])


WRONG: dict[str, tuple[Any, str]] = {
    "names": ({"w": torch.zeros(2), "mask": MASK}, r"lacks \['count'\] and has \[\] besides"),
    "shapes": ({**state(1.0), "w": torch.zeros(3)}, r"'w' is \(2,\) in state 0 and \(3,\) in state 1"),
    "dtypes": ({**state(1.0), "w": torch.zeros(2).double()}, "bring both to one precision"),
    "counters": (state(1.0, count=4), "has no average"),
}


@pytest.mark.parametrize("other, message", WRONG.values(), ids=WRONG)
def test_states_that_do_not_fit_are_refused_by_all(other: Mapping[str, Tensor], message: str) -> None:
    a = state(1.0)
    fishers = [{"w": torch.ones(2)}] * 2
    calls: list[Callable[[], Any]] = [
        lambda: interpolate(a, other, 0.5),
        lambda: soup([a, other]),
        lambda: fisher_merge([a, other], fishers),
        lambda: greedy_soup([a, other], lambda one: 0.0),
        lambda: alpha_sweep(a, other, lambda one: 0.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_settings_that_do_not_fit_are_refused() -> None:
    two, ones = [state(1.0), state(2.0)], {"w": torch.ones(2)}
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"alpha={alpha}: must be from 0"):
            interpolate(*two, alpha)
    for weights in ([1.0], [0.0, 0.0], [2.0, -1.0], [1.0, math.inf]):
        with pytest.raises(ValueError, match="pass 2 numbers of 0 or more"):
            soup(two, weights)
    with pytest.raises(ValueError, match="no states"):
        soup([])
    with pytest.raises(ValueError, match="1 fishers for 2 states"):
        fisher_merge(two, [ones])
    with pytest.raises(ValueError, match="must be a positive number"):
        fisher_merge(two, [ones, ones], floor=0)
    with pytest.raises(ValueError, match=r"fisher of 'w' is \(3,\)"):
        fisher_merge(two, [ones, {"w": torch.ones(3)}])
    with pytest.raises(ValueError, match="negative numbers"):
        fisher_merge(two, [ones, {"w": torch.tensor([1.0, -1.0])}])
    with pytest.raises(ValueError, match="the score is nan"):
        greedy_soup(two, lambda one: math.nan)
