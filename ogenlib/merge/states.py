"""Pure functions on state dicts: interpolation, soups and Fisher-weighted merges of models that have the same tensors.

"Robust fine-tuning of zero-shot models", Wortsman et al., CVPR 2022. https://arxiv.org/abs/2109.01903 (WiSE-FT)
"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
Wortsman et al., ICML 2022. https://arxiv.org/abs/2203.05482
"Merging Models with Fisher-Weighted Averaging", Matena & Raffel, NeurIPS 2022. https://arxiv.org/abs/2111.09832

Reproduced: ``(1 - alpha) * a + alpha * b`` of every tensor; uniform soups; greedy soups in the order of held-out
accuracy, an ingredient kept where the average with it is no worse; ``sum_i l_i F_i x_i / sum_i l_i F_i`` with a floor
under the Fisher information.
Different: sums are in fp32 at least, and a number that is the same in all states stays it bit for bit, infinities too
(a causal mask). Tensors of whole numbers (a counter of batches) have no average: they must be equal.

A state is a mapping name -> tensor. Nothing here changes what it is given. `ogenlib.merge.wise` applies this to
hosts, and `ogenlib.merge.fisher` estimates Fisher information.

Notation: `n` states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ogenlib.distill.named import accumulator_dtype

State = Mapping[str, Tensor]
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # the steps of WiSE-FT's figures
ALPHA = 0.5  # WiSE-FT's recommendation where nothing is known of the target
FLOOR = 1e-8  # under Fisher information; released code of WiSE-FT


def check_alpha(alpha: float) -> float:
    """`alpha` if it lies from 0 to 1.

    Raises:
        ValueError: it does not.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: must be from 0 (the first state) to 1 (the second)")
    return float(alpha)


def check_states(states: Sequence[State]) -> None:
    """Refuse states that cannot be merged.

    Raises:
        ValueError: none at all, other names, shapes or dtypes than the first, or whole numbers that differ.
    """
    if not states:
        raise ValueError("no states to merge; pass at least one, such as host.state_dict()")
    first = states[0]
    for at, state in enumerate(states[1:], 1):
        missing, extra = sorted(first.keys() - state.keys()), sorted(state.keys() - first.keys())
        if missing or extra:
            raise ValueError(
                f"state {at} lacks {missing[:5]} and has {extra[:5]} besides; all must come from models of one kind, "
                "built with the same settings and names"
            )
        for name, tensor in first.items():
            other = state[name]
            if tensor.shape != other.shape:
                raise ValueError(
                    f"{name!r} is {tuple(tensor.shape)} in state 0 and {tuple(other.shape)} in state {at}; "
                    "models with other class names or sizes cannot be merged"
                )
            if tensor.dtype != other.dtype:
                raise ValueError(
                    f"{name!r} is {tensor.dtype} in state 0 and {other.dtype} in state {at}; "
                    "bring both to one precision first, as with tensor.float()"
                )
            if not _averages(tensor) and not torch.equal(tensor, other.to(tensor.device)):
                raise ValueError(
                    f"{name!r} holds {tensor.dtype}, which has no average, and differs between state 0 and {at}; "
                    "set it to the same value in all states, or leave it out"
                )


def interpolate(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """``(1 - alpha) * a + alpha * b`` in the dtype and on the device of `a`; copies of `a` at 0 and of `b` at 1.

    Raises:
        ValueError: as `check_states` and `check_alpha`.
    """
    alpha = check_alpha(alpha)
    return soup([a, b], [1 - alpha, alpha])


@torch.no_grad()
def soup(states: Sequence[State], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The average of `n` states, in the dtype and on the device of the first.

    Args:
        weights: `n` of them, 0 or more, divided by their sum; None for a uniform soup.

    Raises:
        ValueError: as `check_states`, or weights that do not fit.
    """
    check_states(states)
    shares = _shares(len(states), weights)
    return {name: _mean([state[name] for state in states], shares) for name in states[0]}


@dataclass(frozen=True)
class GreedySoup:
    """What `greedy_soup` returns.

    Attributes:
        state: the average of the ingredients.
        kept: their positions among the states, the best first.
        scores: of each state alone, in the order of the states.
        score: of the soup.
    """

    state: dict[str, Tensor]
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    score: float


def greedy_soup(states: Sequence[State], score: Callable[[State], float]) -> GreedySoup:
    """The average of those states that do not lower the score of the average, tried from the best to the worst.

    Args:
        score: of a state on held-out images, higher is better: never on what is reported. It is asked `2 n - 1` times.

    Raises:
        ValueError: as `check_states`, or a score that is not a number.
    """
    check_states(states)
    alone = tuple(_finite(score(state)) for state in states)
    order = sorted(range(len(states)), key=lambda i: -alone[i])  # the first of equals first
    kept, average, best = [order[0]], soup([states[order[0]]]), alone[order[0]]
    for i in order[1:]:
        tried = soup([states[j] for j in (*kept, i)])
        reached = _finite(score(tried))
        if reached >= best:
            average, best = tried, reached
            kept.append(i)
    return GreedySoup(average, tuple(kept), alone, best)


@torch.no_grad()
def fisher_merge(
    states: Sequence[State], fishers: Sequence[State], weights: Sequence[float] | None = None, *, floor: float = FLOOR
) -> dict[str, Tensor]:
    """``sum_i l_i F_i x_i / sum_i l_i F_i``: every number as near to each model as its data made it certain of it.

    Args:
        fishers: `n` diagonals of Fisher information of the same shapes, 0 or more
            (`ogenlib.merge.fisher.diagonal_fisher`); tensors that one of them lacks (buffers) are averaged with
            `weights` alone.
        weights: `n` of them as for `soup`; ``[1 - alpha, alpha]`` is WiSE-FT's merge.
        floor: the least information; where all models have less, the merge is `soup`.

    Raises:
        ValueError: as `soup`, a number or shape of fishers that does not fit, negative information, a floor that is
            not positive.
    """
    check_states(states)
    if len(fishers) != len(states):
        raise ValueError(f"{len(fishers)} fishers for {len(states)} states; pass one diagonal for each")
    if not (floor > 0 and math.isfinite(floor)):
        raise ValueError(f"floor={floor}: must be a positive number ({FLOOR} in WiSE-FT's code)")
    shares = _shares(len(states), weights)
    merged = {}
    for name, first in states[0].items():
        tensors = [state[name] for state in states]
        if not _averages(first) or any(name not in fisher for fisher in fishers):
            merged[name] = _mean(tensors, shares)
            continue
        information = [_information(fisher[name], first, name, floor) for fisher in fishers]
        merged[name] = _mean(tensors, [share * one for share, one in zip(shares, information, strict=True)])
    return merged


def alpha_sweep(
    a: State, b: State, score: Callable[[State], float], alphas: Sequence[float] = ALPHAS
) -> list[tuple[float, float]]:
    """(alpha, score of ``interpolate(a, b, alpha)``) for every alpha, in their order.

    Raises:
        ValueError: as `interpolate`, before anything is scored, or a score that is not a number.
    """
    check_states([a, b])
    checked = [check_alpha(alpha) for alpha in alphas]
    return [(alpha, _finite(score(interpolate(a, b, alpha)))) for alpha in checked]


def best_alpha(curve: Sequence[tuple[float, float]]) -> float:
    """The alpha of the highest score; of equals the smallest, which is nearest to where training began.

    Raises:
        ValueError: an empty curve.
    """
    if not curve:
        raise ValueError("the curve is empty; make one with alpha_sweep(a, b, score)")
    highest = max(score for _, score in curve)
    return min(alpha for alpha, score in curve if score == highest)


def _averages(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _shares(n: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * n if weights is None else [float(w) for w in weights]
    total = sum(given)
    if len(given) != n or min(given) < 0 or not (total > 0 and math.isfinite(total)):
        raise ValueError(f"weights={given}: pass {n} numbers of 0 or more, one a state, not all of them 0")
    return [w / total for w in given]


def _mean(tensors: Sequence[Tensor], shares: Sequence[float | Tensor]) -> Tensor:
    """The weighted mean; shares need not sum to one. A number that is the same everywhere is kept as it is."""
    first = tensors[0]
    if not _averages(first):
        return first.detach().clone()
    wide = accumulator_dtype(first.dtype)
    same = torch.ones_like(first, dtype=torch.bool)
    weighted, total = torch.zeros_like(first, dtype=wide), torch.zeros_like(first, dtype=wide)
    for tensor, share in zip(tensors, shares, strict=True):
        if isinstance(share, float) and share == 0:
            continue  # 0 * inf would be nan
        value = tensor.detach().to(first.device, wide)
        weighted, total = weighted + share * value, total + share
        same &= tensor.detach().to(first.device) == first
    only = [tensor for tensor, share in zip(tensors, shares, strict=True) if isinstance(share, Tensor) or share != 0]
    if len(only) == 1:
        return only[0].detach().to(first.device, copy=True)
    return torch.where(same, first.detach(), (weighted / total).to(first.dtype))


def _information(fisher: Tensor, tensor: Tensor, name: str, floor: float) -> Tensor:
    if fisher.shape != tensor.shape:
        raise ValueError(
            f"the fisher of {name!r} is {tuple(fisher.shape)}, the tensor {tuple(tensor.shape)}; "
            "estimate it on a model of the same kind"
        )
    if not bool((fisher >= 0).all()):
        raise ValueError(f"the fisher of {name!r} holds negative numbers or nan; squares of gradients are 0 or more")
    return fisher.detach().to(tensor.device, accumulator_dtype(tensor.dtype)).clamp(min=floor)


def _finite(score: float) -> float:
    value = float(score)
    if not math.isfinite(value):
        raise ValueError(f"the score is {value}; it must be a number, such as accuracy on held-out images")
    return value
