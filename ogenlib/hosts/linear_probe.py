"""Linear probe: a classifier head on frozen image features, started at zero-shot.

"Learning Transferable Visual Models From Natural Language Supervision", Radford et al. 2021.
https://arxiv.org/abs/2103.00020

Reproduced: the image tower is frozen; one linear layer is trained on its features by cross-entropy.
Different: the paper fits logistic regression from zero on features as they come, its penalty searched on validation
images; here the head starts at the zero-shot weights (as in WiSE-FT's released code), features and weights have
unit length, and AdamW trains it at 1e-3.

Notation: `B` images, `C` classes, `D` embedding, `R` names with a weight of their own.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import Host, MethodInfo
from ogenlib.hosts.parts.head import Headed
from ogenlib.hosts.registry import register

LR = 1e-3  # as `cross_modal`, whose released code searches it for the same head


@register
class LinearProbe(Headed):
    """A head on cached features.

    Args:
        templates, unit_head, extra_names: see `Headed`.
    """

    info = MethodInfo(
        "linear_probe",
        "adapter",
        "Learning Transferable Visual Models From Natural Language Supervision",
        "https://arxiv.org/abs/2103.00020",
        2021,
        title="Linear probe",
        aliases=("LP",),
    )

    trains_unknown: ClassVar[bool] = True

    def train_settings(self) -> dict[str, Any]:
        return {"lr": LR}


@torch.enable_grad()
def probe(host: Headed, data: FeatureBank, epochs: int, seed: int, *, lr: float = LR, batch_size: int = 32) -> float:
    """Train `host.head` alone on a bank of its names' frozen features, with AdamW and a cosine over the steps.

    Every process does the same: batches and views are drawn from `seed`, whatever the number of processes.

    Returns:
        The mean loss over the images of the last epoch.
    """
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([host.head], lr=lr, weight_decay=0.0)
    steps = epochs * -(-len(data) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    mean = float("nan")
    for _ in range(epochs):
        total = 0.0
        for indices in torch.randperm(len(data), generator=draws).split(batch_size):
            z = F.normalize(data.view(indices, draws), dim=-1).to(host.device)
            labels = data.labels[indices.to(data.labels.device)].to(host.device)
            loss = F.cross_entropy(Host.logits(host, z, host.class_weights()), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(indices)
        mean = total / len(data)
    host.head.grad = None
    return mean
