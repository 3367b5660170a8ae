"""Several processes (torchrun) training one small set of parameters, with the same result as one process.

Every rank draws the same global batches and works on its share; gradients are averaged with the share's size
as weight, so the sum is the global batch's gradient whatever the split.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: torch.device | str = "cpu", timeout: timedelta | None = None) -> bool:
    """Join the group torchrun announces; False (and nothing happens) outside torchrun.

    gloo on the CPU, nccl on CUDA. timeout: how long a process waits for the others; None for torch's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
        return False
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo", timeout=timeout)
    return True


@contextmanager
def group(device: torch.device | str = "cpu", timeout: timedelta | None = None) -> Iterator[None]:
    """Be in the group that torchrun announces inside the block, and in none after it; arguments as for `start`."""
    many = start(device, timeout)
    try:
        yield
    finally:
        if many:
            stop()


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) when there is one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_main() -> bool:
    """Whether this process writes files and logs."""
    return world()[0] == 0


def local_device(device: str) -> str:
    """This process's own GPU where `device` is plain "cuda" under torchrun; otherwise `device`."""
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if device == "cuda" and own is not None else device


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    if world()[1] > 1:
        dist.barrier()


def share(indices: Tensor) -> Tensor:
    """This rank's contiguous part of the global batch's indices `(B,)`; may be empty."""
    rank, count = world()
    return indices.tensor_split(count)[rank]


def gather(own: Tensor, total: int | None = None) -> Tensor:
    """Features `(total, ...)` of the whole batch on every rank, in the batch's order; of one process `own` itself.

    For losses in which the images of a batch meet each other: every rank computes the loss of the whole batch.
    Gradients reach the rank's own features only, scaled so that `average_gradients` with the shares as weights makes
    the whole batch's gradient of them.

    Args:
        own: this rank's `share`, one feature an image.
        total: images of the batch (`Batch.total`).

    Raises:
        ValueError: no `total`, or fewer images than processes.
    """
    rank, count = world()
    if count == 1:
        return own
    if total is None or total < count:
        raise ValueError(
            f"a step of {total} images for {count} processes: a loss over whole batches needs an image for each of "
            "them in every step, the last one too; use another batch_size or fewer processes"
        )
    sizes = [len(part) for part in torch.arange(total).tensor_split(count)]
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    if own.requires_grad:
        parts[rank] = own.detach() + total / len(own) * (own - own.detach())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[nn.Parameter], weight: float) -> None:
    """Replace each gradient by the weighted sum over ranks, in place.

    weight: this rank's part of the global batch, 0 to 1; the ranks' weights add up to 1.
    """
    if world()[1] == 1:
        return
    every = list(parameters)
    if not every:
        return
    # A parameter without a gradient on any rank must stay so: an optimizer takes zeros for a step.
    owners = torch.tensor([float(p.grad is not None) for p in every], device=every[0].device)
    dist.all_reduce(owners)
    for p, owned in zip(every, owners.tolist(), strict=True):
        if not owned:
            continue
        # A rank without images has no gradient but must take part in the sum.
        grad = torch.zeros_like(p) if p.grad is None else p.grad * weight
        dist.all_reduce(grad)
        p.grad = grad


def weighted_sum(value: float, weight: float) -> float:
    """Sum over ranks of `value * weight`."""
    if world()[1] == 1:
        return value * weight
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor([value * weight], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)
