"""Gaussian-weighted average of prompts over epochs.

"Self-regulating Prompts: Foundational Model Adaptation without Forgetting" (PromptSRC), Khattak et al., ICCV 2023.
https://arxiv.org/abs/2307.06948

Reproduced: weights of a normal density at epochs 1, ..., total, normalised over them. Different: the released code
averages the whole model and uses the average after the last epoch only; here it is a teacher at any epoch, with the
weights renormalised over the epochs seen.

Notation: `t` epoch.
"""

from __future__ import annotations

import math

from ogenlib.distill.named import NamedTensors, check_positive, check_whole
from ogenlib.distill.weighted import WeightedAverage, normalised


def _log_density(total: int, mu: float, sigma: float) -> list[float]:
    check_whole("total", total, 1)
    check_positive("sigma", sigma)
    if not math.isfinite(mu):
        raise ValueError(f"mu={mu}: must be a number, the epoch that weighs most")
    return [-(((t - mu) / sigma) ** 2) / 2 for t in range(1, total + 1)]


def gaussian_weights(total: int, mu: float, sigma: float) -> list[float]:
    """``w(t)`` proportional to ``exp(-(t - mu)^2 / (2 sigma^2))``, `t = 1, ..., total`; their sum is 1.

    Raises:
        ValueError: `total` below 1, `sigma` not positive, or `mu` not finite.
    """
    return normalised(_log_density(total, mu, sigma))


class GaussianPromptAverage(WeightedAverage):
    """Mean of the snapshots of epochs 1, ..., t with weights ``exp(-(t - mu)^2 / (2 sigma^2))``.

    After epoch `total` the weights are PromptSRC's. Before it they are renormalised over the epochs seen, so that
    `state` is a mean at every epoch (ours: the released code never looks at it before the end).

    Args:
        total: number of epochs of the run.
        mu, sigma: centre and width of the bell in epochs. Default 0.75 and 0.05 of `total`: 15 and 1 of 20 epochs as
            in the released base-to-new configuration, scaled to other lengths (the scaling is ours). The released
            few-shot configurations, 50 epochs, have 30 and 30, or 45 and 5.

    Raises:
        ValueError: `total` below 1, `sigma` not positive, or `mu` not finite.
    """

    def __init__(self, tensors: NamedTensors, total: int, mu: float | None = None, sigma: float | None = None) -> None:
        check_whole("total", total, 1)
        self.mu = float(0.75 * total if mu is None else mu)
        self.sigma = float(0.05 * total if sigma is None else sigma)
        super().__init__(tensors, total, _log_density(total, self.mu, self.sigma), with_start=False)

    def _settings(self) -> dict[str, int | float]:
        return {"total": self.total, "mu": self.mu, "sigma": self.sigma}
