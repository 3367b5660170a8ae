"""How a trained host is to be scored where names without images compete: its control, and two constants.

Notation: `N` images, `K` known names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.bench.protocols.parts.controls import Competing
from ogenlib.data import FeatureBank
from ogenlib.evaluate import episodic_constant, predict_logits
from ogenlib.hosts import Host, build
from ogenlib.ogen.wrapper import OGEN
from ogenlib.train.batches import Bank
from ogenlib.utils.variant import Variant


def competing(
    model: Host, variant: Variant, templates: Sequence[str], bank: Bank, features: FeatureBank, seed: int
) -> Competing:
    """The host's control, and the constants of calibrated stacking, from the training images in their first view.

    A control, and OGEN, score names without images by zero-shot; a host alone and one with KL by their own weights.

    Args:
        templates: of zero-shot.
        bank: what the host was trained on.
        features: of the same images, by the frozen tower.
        seed: of the episodes.
    """
    names = model.names
    zero_shot = build("zero_shot", model.clip, names, templates=list(templates))
    trained_on, features = bank.select(names), features.select(names)
    own, unknown = predict_logits(model, trained_on, names), predict_logits(zero_shot, features, names)
    if isinstance(model, OGEN) and model.evidence is not None:
        # It has seen these images; of test images it will not have.
        added = model.evidence.left_out(F.normalize(features.features.float(), dim=-1), features.labels)
        scale = float(model.clip.logit_scale)
        own = own + scale * added[0].cpu()
        unknown = unknown / model.evidence.temperature + scale * added[1].cpu()

    def constant(unknown: Tensor) -> float | None:
        return episodic_constant(own, unknown, trained_on.labels.cpu(), torch.Generator().manual_seed(seed))

    has_control = model.info.ogen and not variant.ogen
    return Competing(
        zero_shot, constant(unknown if variant.ogen else own), constant(unknown) if has_control else None, has_control
    )
