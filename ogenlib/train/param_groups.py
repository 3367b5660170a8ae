"""Learning rates by parameter name: factors and freezing by first-match-wins patterns, and layer-wise decay.

Notation: `L` blocks of a tower.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from ogenlib.train.config import Rates

_BLOCK = re.compile(r"^(.*?)(?:resblocks|blocks|layers|layer|stages)\.?(\d+)\.")
_BEFORE = re.compile(
    r"(?:^|\.)(?:class_embedding|positional_embedding|token_embedding|conv\d|bn\d|ln_pre|patch_embed|"
    r"pos_embed|cls_token|stem|embeddings)(?:\.|$)"
)


def factors(names: Iterable[str], rates: Rates) -> dict[str, float]:
    """Factor on the learning rate of every name: that of the first pattern found in it, else 1.

    Raises:
        ValueError: a pattern that decides about no name, which is a slip of the pen or stands behind a wider one.
    """
    every = list(names)
    unused = dict.fromkeys(pattern for pattern, _ in rates)
    by_name = {}
    for name in every:
        pattern, factor = next(((p, f) for p, f in rates if re.search(p, name)), ("", 1.0))
        unused.pop(pattern, None)
        by_name[name] = factor
    if unused:
        shown = ", ".join(every[:4])
        raise ValueError(f"rates: {', '.join(map(repr, unused))} decides about none of the names {shown}, ...")
    return by_name


@contextmanager
def frozen(parameters: Mapping[str, nn.Parameter], rates: Rates) -> Iterator[dict[str, float]]:
    """Parameters of factor 0 need no gradients inside the block, so they leave `host.trainable()` for that long.

    Yields the factors of the others by name.

    Raises:
        ValueError: as `factors`; or nothing is left to train.
    """
    by_name = factors(parameters, rates)
    held = [name for name, factor in by_name.items() if factor == 0]
    if held and len(held) == len(parameters):
        raise ValueError("rates freezes every parameter; leave one a factor above 0")
    for name in held:
        parameters[name].requires_grad_(False)
    try:
        yield {name: factor for name, factor in by_name.items() if factor}
    finally:
        for name in held:
            parameters[name].requires_grad_(True)


def layer_decay(names: Iterable[str], decay: float) -> Rates:
    """Patterns under which block `i` of `L` in each tower learns at ``decay ** (L - i)`` of the rate, i = 0, ...

    What stands before the first block (embeddings, first convolution) learns at ``decay ** (L + 1)``; what stands
    behind the last one, and heads, at the full rate. As in BEiT (https://arxiv.org/abs/2106.08254).

    Args:
        names: of the parameters, `host.trainable()`.
        decay: above 0; 1 changes nothing.

    Raises:
        ValueError: a decay that is not positive, or names without blocks.
    """
    if not (decay > 0 and math.isfinite(decay)):
        raise ValueError(f"decay={decay}: must be a positive number, about 0.65 to 0.9")
    every = list(names)
    towers: dict[str, set[int]] = {}
    for name in every:
        if match := _BLOCK.match(name):
            towers.setdefault(match[1], set()).add(int(match[2]))
    if not towers:
        raise ValueError(f"no numbered blocks among the names {', '.join(every[:4])}, ...")
    rates: dict[str, float] = {}
    for name in every:
        if match := _BLOCK.match(name):
            # By position: some towers count their blocks from 1.
            behind = sum(1 for i in towers[match[1]] if i >= int(match[2]))
            rates.setdefault(f"^{re.escape(match[0])}", decay**behind)
        elif _BEFORE.search(name):
            # The tower whose blocks share most of the path with the name; of several the one that is less deep inside.
            tower = max(towers, key=lambda start: (_shared(start, name), -start.count(".")))
            rates[f"^{re.escape(name)}$"] = decay ** (len(towers[tower]) + 1)
    return tuple(rates.items())


def _shared(a: str, b: str) -> int:
    """Parts of the dotted paths that agree from the start."""
    pairs = list(zip(a.split("."), b.split("."), strict=False))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))
