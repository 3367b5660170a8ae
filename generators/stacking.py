"""How well known and unknown classes are told apart and named, whatever constant stands between them.

"An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the Wild", Chao et al.,
ECCV 2016. https://arxiv.org/abs/1605.04253

Reproduced: calibrated stacking (a constant is taken from the logits of the known classes), and AUSUC, the area under
the curve of the accuracy on known against that on unknown images while all classes compete. No constant can move it.
Not reproduced: accuracies averaged over classes; here every image counts the same, as in the tables beside it.

Notation: `N` images, `C` classes, the known ones first, `P` points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StackingCurve:
    """Joint accuracies in percent, by the constant that is taken from the known classes' logits.

    Attributes:
        constants: `(P,)`, rising from minus to plus infinity; a point holds from its constant up to the next one.
        known, unknown: `(P,)`, falling from what the known classes' images reach where all are taken for known, and
            rising to what the others' images reach where all are taken for unknown.
    """

    constants: Tensor
    known: Tensor
    unknown: Tensor

    @property
    def area(self) -> float:
        """AUSUC in percent: 100 where every image is named rightly whatever the constant."""
        return float(torch.trapezoid(self.unknown.double(), -self.known.double())) / 100

    def at(self, constant: float) -> tuple[float, float]:
        """Accuracies of known and of unknown images with this constant."""
        place = int((self.constants <= constant).sum()) - 1
        return float(self.known[place]), float(self.unknown[place])

    @property
    def best(self) -> tuple[float, float]:
        """The constant of the largest harmonic mean of the two accuracies, and that mean.

        Only where images were kept out for it is this a choice; of test images it is a bound.
        """
        sums = (self.known + self.unknown).clamp(min=1e-12)
        means = 2 * self.known * self.unknown / sums
        place = int(means.argmax())
        finite = self.constants[place].clamp(min=-torch.finfo(torch.float32).max, max=torch.finfo(torch.float32).max)
        return float(finite), float(means[place])


def stacking_curve(logits: Tensor, labels: Tensor, n_known: int) -> StackingCurve:
    """The curve of logits `(N, C)` and labels `(N,)`, of which the classes below `n_known` are the known ones.

    An image is taken for a known class where its largest known logit, less the constant, is above its largest unknown
    one.

    Raises:
        ValueError: shapes that do not fit, or no image or no class on one side.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not 0 < n_known < logits.shape[1]:
        raise ValueError(
            f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)} and n_known={n_known} do not fit; pass (N, C) "
            "and (N,), with known classes and others among the C"
        )
    is_known = labels < n_known
    if bool(is_known.all()) or not bool(is_known.any()):
        raise ValueError("images of known and of unknown classes are needed, and all are of one kind")
    known, unknown = logits[:, :n_known].max(dim=1), logits[:, n_known:].max(dim=1)
    right = torch.where(is_known, known.indices == labels, unknown.indices + n_known == labels)
    gap = (known.values - unknown.values).double()  # taken for known where it is above the constant
    of_known, of_unknown = gap[is_known & right].sort().values, gap[~is_known & right].sort().values
    ends = gap.new_tensor([-torch.inf])
    constants = torch.cat([ends, of_known, of_unknown]).unique()
    kept = len(of_known) - torch.searchsorted(of_known, constants, right=True)
    caught = torch.searchsorted(of_unknown, constants, right=True)
    return StackingCurve(
        constants, 100 * kept.double() / int(is_known.sum()), 100 * caught.double() / int((~is_known).sum())
    )


def ausuc(logits: Tensor, labels: Tensor, n_known: int) -> float:
    """The area under `stacking_curve`, in percent."""
    return stacking_curve(logits, labels, n_known).area


def gate_auroc(logits: Tensor, labels: Tensor, n_known: int) -> float:
    """How well the gap between the largest known and the largest unknown logit tells known images from others.

    AUROC in percent, ties count half; no constant moves it, and whether an image is named rightly does not count.

    Raises:
        ValueError: as `stacking_curve`.
    """
    stacking_curve(logits, labels, n_known)  # refuses what does not fit
    gap = (logits[:, :n_known].amax(dim=1) - logits[:, n_known:].amax(dim=1)).double()
    known, others = gap[labels < n_known], gap[labels >= n_known].sort().values
    below, not_above = (torch.searchsorted(others, known, right=right) for right in (False, True))
    return 50 * float((below + not_above).double().mean()) / len(others)
