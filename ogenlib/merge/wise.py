"""Between a trained host and its own start: WiSE-FT for every method that has tensors of its own.

"Robust fine-tuning of zero-shot models", Wortsman et al., CVPR 2022. https://arxiv.org/abs/2109.01903

Reproduced: weights of image tower and head interpolated between zero-shot and fine-tuned, alpha 0.5 where nothing
says better, or the alpha of the highest accuracy on images of the training domain that are neither trained on nor
reported (`ogenlib.bench.protocols.domain_shift`).
Different: any host. One with trained copies of the towers starts at the frozen ones, and a head at zero-shot weights,
so its alpha 0 is zero-shot. The others' alpha 0 is their own start: zero-shot for adapters that start at zero and for
a context of words, and something else for random prompts. What a method multiplies (low-rank factors, deep prompts)
is interpolated factor by factor.

A host inside OGEN is interpolated; OGEN's zero-shot weights and features of names without images are the same at
every alpha.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from ogenlib.distill.named import snapshot, swap
from ogenlib.hosts import Host
from ogenlib.merge.states import check_states, interpolate


def start_state(host: Host) -> dict[str, Tensor]:
    """The tensors a host starts with, as the same settings build them again.

    That is the start of the trained host itself, unless it was built with a generator of its own: take
    `snapshot_of(host)` before training then.
    """
    return snapshot(_twin(host).state_dict())


def snapshot_of(host: Host) -> dict[str, Tensor]:
    """Copies of a host's tensors as they are now, OGEN's aside."""
    return snapshot(host.inner.state_dict())


def obstacle(host: Host, start: Mapping[str, Tensor] | None = None) -> str | None:
    """What keeps a host from being interpolated with its start; None if nothing does."""
    inner = host.inner
    if not inner.trainable():
        return f"{inner.info.name} has nothing that training changed"
    try:
        check_states([start_state(host) if start is None else start, inner.state_dict()])
    except ValueError as error:
        return f"the start of {inner.info.name} is not made of the same tensors: {error}"
    return None


def wise_ft(host: Host, alpha: float, start: Mapping[str, Tensor] | None = None) -> Host:
    """A copy of a trained host with ``(1 - alpha) * start + alpha * trained`` for its tensors, in eval mode.

    Args:
        alpha: 0 is the start, 1 the trained host.
        start: as `snapshot_of` gives it; None for `start_state(host)`.

    Raises:
        ValueError: an alpha outside 0 to 1, or a host that cannot be interpolated (why).
    """
    mixed = _mixed(host, alpha, start)
    copy = _twin(host)
    copy.load_state_dict(mixed)
    return host.around(copy).eval()


@contextmanager
def interpolated(host: Host, alpha: float, start: Mapping[str, Tensor] | None = None) -> Iterator[Host]:
    """Let a trained host be what `wise_ft` makes of it inside the block; afterwards its tensors are back, bit for bit.

    Takes memory for one more copy of the tensors and builds nothing where `start` is given: for sweeps.

    Raises:
        ValueError: as `wise_ft`.
    """
    mixed = _mixed(host, alpha, start)
    with swap(host.inner.state_dict(keep_vars=True), mixed):
        yield host


def _mixed(host: Host, alpha: float, start: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    first = start_state(host) if start is None else start
    reason = obstacle(host, first)
    if reason is not None:
        raise ValueError(f"there is nothing between start and end to interpolate: {reason}")
    return interpolate(first, host.inner.state_dict(), alpha)


def _twin(host: Host) -> Host:
    """The host again, untrained, on the same model."""
    inner = host.inner
    return type(inner)(inner.clip, inner.names, **inner.config()).to(inner.device)
