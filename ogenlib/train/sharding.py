"""Towers divided among processes (FSDP): each keeps a share of every block's weights, gradients and optimizer state.

For towers whose trainable copy does not fit on one device. Blocks are put together one at a time when they run, so a
step costs more communication; the result is that of one process. What stands outside the blocks (embeddings,
projections, heads) stays whole on every process.

Notation: none; nothing here looks inside tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ogenlib.hosts import Host
from ogenlib.utils import distributed

H = TypeVar("H", bound=Host)
LISTS = ("resblocks", "blocks")  # what open_clip's own towers and timm's call theirs


def is_divided(tensor: Tensor) -> bool:
    """Whether this process holds only a share of it."""
    return hasattr(tensor, "full_tensor")


def settled(host: Host) -> bool:
    """Whether the host has divided blocks; all are put back into shares, as a forward pass may leave them whole."""
    divided: list[Any] = [m for m in host.modules() if hasattr(m, "unshard") and hasattr(m, "reshard")]
    for module in divided:
        module.reshard()
    return bool(divided)


def whole(tensor: Tensor) -> Tensor:
    """All of it; a call in which every process has to take part."""
    return tensor.full_tensor() if is_divided(tensor) else tensor  # type: ignore[attr-defined]


def divide_blocks(host: H) -> H:
    """Divide the blocks of the towers that `host` trains, in place, and give it back; call it before `ogenlib.fit`.

    Every process has to run the host from then on, also for tests. `ogenlib.fit` writes no checkpoints of it, and what
    computes with weights themselves (teachers, EMA, L2-SP) does not take it. `whole_copy` makes an ordinary host of
    what was trained.

    Raises:
        ValueError: one process, or no blocks of the host's own.
    """
    count = distributed.world()[1]
    if count == 1:
        raise ValueError("there is one process to divide among; start several with torchrun and call distributed.start")
    own = {id(p) for p in host.parameters() if p.requires_grad}
    blocks = [b for b in _blocks(host) if all(id(p) in own for p in b.parameters())]
    if not blocks:
        raise ValueError(
            f"{host.info.name} trains no blocks ({' or '.join(LISTS)}) of a tower; this is for hosts such as full_ft"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(host.device.type, (count,))
    for block in blocks:
        # Each block is a root of its own: without the flag it would stay whole after its forward pass.
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    return host


def whole_copy(host: H) -> H:
    """An ordinary host on every process with the tensors of a divided one; it can be tested, saved and exported."""
    settled(host)
    copy = type(host)(host.clip, host.names, **host.config())
    copy.load_state_dict({name: whole(tensor) for name, tensor in host.state_dict().items()})
    return copy.eval()


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients, some of them divided, to a common norm of at most `largest`; returns the norm before, a scalar.

    Every process takes part in the same order.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norms = [whole(torch.linalg.vector_norm(grad.float())) for grad in grads]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for grad in grads:
        local = grad.to_local() if is_divided(grad) else grad  # type: ignore[attr-defined]
        local.mul_(factor.to(local.device))
    return norm


def _blocks(host: Host) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for part in host.checkpointed():
        for name, module in part.named_modules():
            if name.rpartition(".")[2] in LISTS and isinstance(module, (nn.ModuleList, nn.Sequential)):
                blocks += list(module)
    return blocks
