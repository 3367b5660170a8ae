"""NegLabel: names far from all known ones compete with them.

"Negative Label Guided OOD Detection with Pretrained Vision-Language Models", Jiang et al., ICLR 2024.
https://arxiv.org/abs/2403.20078

Reproduced: negatives are the 15 % of a vocabulary that are least similar to the known names by the 95th percentile of
their similarities; the score is the share of the softmax that known names get at temperature 0.01, averaged over 100
random groups of negatives (settings read in the released configuration for ImageNet).
Different: nouns and adjectives are not told apart, so one template serves all; the remainder that does not fill the
last group is spread over the groups and not dropped; groups are as many as there are negatives where these are fewer.
CLIPN and LoCoOp, which train prompts on images, are not here.

Notation: `B` images, `C` classes, `U` other names, `D` embedding, `G` groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pytorch_ood.api import DetectorInfo, Paper, Task
from torch import Tensor
from typing_extensions import Self

from ogenlib.detect.base import ChunkedDetector, Encoder, unit_rows
from ogenlib.detect.encoder import ImageEncoder
from ogenlib.detect.vocabulary import read_vocabulary
from ogenlib.hosts.zero_shot import zero_shot_weights
from ogenlib.towers import ClipLike

KEEP, PERCENTILE, GROUPS, TEMPERATURE = 0.15, 0.95, 100, 0.01
ROWS = 4096  # candidates compared with the known names at a time


def mine_negatives(
    class_embeddings: Tensor, candidates: Tensor, keep: float | int = KEEP, percentile: float = PERCENTILE
) -> Tensor:
    """Indices of the candidates `(U, D)` least similar to the known names `(C, D)`, least similar first.

    Args:
        keep: share of the candidates, or their number if it is a whole one.
        percentile: of a candidate's similarities to the known names, by which candidates are ordered.

    Raises:
        ValueError: a setting out of range, or nothing kept.
    """
    known = unit_rows("class_embeddings", class_embeddings)
    others = unit_rows("candidates", candidates, known.shape[1]).to(known.device)
    if not 0 <= percentile <= 1:
        raise ValueError(f"percentile={percentile}: must be between 0 and 1")
    count = keep if isinstance(keep, int) else round(keep * len(others)) if 0 < keep <= 1 else 0
    if not 1 <= count <= len(others):
        raise ValueError(
            f"keep={keep} of {len(others)} candidates: pass a share above 0, up to 1.0, that keeps at least "
            "one, or a number of candidates"
        )
    nearness = torch.cat([(piece @ known.T).quantile(percentile, dim=1) for piece in others.split(ROWS)])
    return nearness.argsort(stable=True)[:count]


class NegLabel(ChunkedDetector):
    """Minus the share of the softmax that the known names get against negative names.

    Args:
        encoder: inputs -> features `(B, D)`, or None where features are passed.
        class_embeddings: `(C, D)` of the known names.
        negative_embeddings: `(U, D)` of the negative ones (`mine_negatives` chooses them).
        temperature: 0.01.
        groups: `G`, 100. One group is the plain softmax over all names.
        seed: of the random groups.

    Raises:
        TypeError, ValueError: embeddings that do not fit, or a setting out of range.
    """

    info = DetectorInfo(
        tasks=frozenset({Task.CLASSIFICATION}),
        paper=Paper(
            title="Negative Label Guided OOD Detection with Pretrained Vision-Language Models",
            venue="ICLR",
            year=2024,
            url="https://arxiv.org/abs/2403.20078",
            code="https://github.com/XueJiang16/NegLabel",
        ),
        ai_coded=True,
    )
    hyperparameter_space = {"temperature": [0.005, 0.01, 0.02, 0.05], "groups": [1, 10, 100]}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder | None,
        class_embeddings: Tensor,
        negative_embeddings: Tensor,
        temperature: float = TEMPERATURE,
        groups: int = GROUPS,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, class_embeddings)
        dim = self.class_embeddings.shape[1]
        negatives = unit_rows("negative_embeddings", negative_embeddings, dim).to(self.class_embeddings.device)
        if not len(negatives):
            raise ValueError("negative_embeddings has no rows; pass those of names that are not among the known ones")
        order = torch.randperm(len(negatives), generator=torch.Generator().manual_seed(seed))
        self.negative_embeddings = negatives[order.to(negatives.device)]
        self.temperature, self.groups = temperature, groups
        self.ready()

    @classmethod
    def from_names(
        cls,
        clip: ClipLike,
        names: Sequence[str],
        vocabulary: str | Path | Sequence[str],
        templates: str | Sequence[str] = "a photo of a {}.",
        keep: float | int = KEEP,
        percentile: float = PERCENTILE,
        **settings: float | int,
    ) -> Self:
        """With negatives mined from a vocabulary: a list, a file with a name a line, `wordnet_nouns()`."""
        candidates = read_vocabulary(vocabulary, names)
        known = zero_shot_weights(clip, names, templates)
        others = zero_shot_weights(clip, candidates, templates)
        chosen = others[mine_negatives(known, others, keep, percentile)]
        return cls(ImageEncoder(clip), known, chosen, **settings)  # type: ignore[arg-type]

    def ready(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: must be above 0; the paper's is {TEMPERATURE}")
        if self.groups < 1 or int(self.groups) != self.groups:
            raise ValueError(f"groups={self.groups}: must be a whole number of 1 or more; the paper's is {GROUPS}")

    def row_cost(self) -> int:
        return 2 * (len(self.class_embeddings) + len(self.negative_embeddings))

    def score_rows(self, z: Tensor) -> Tensor:
        known = torch.logsumexp(z @ self.class_embeddings.T / self.temperature, dim=1, keepdim=True)
        count = min(int(self.groups), len(self.negative_embeddings))
        against = z @ self.negative_embeddings.T / self.temperature
        parts = [piece.logsumexp(dim=1) for piece in against.tensor_split(count, dim=1)]
        # The share of known names in a group's softmax is a sigmoid of the difference of the two sums.
        return -torch.sigmoid(known - torch.stack(parts, dim=1)).mean(dim=1)
