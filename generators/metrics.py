"""How good synthesized features are: beside real ones of the same classes, which no training has seen.

Distances between clouds: Fréchet distance (Heusel et al. 2017, https://arxiv.org/abs/1706.08500, on these features
instead of Inception's), MMD (Gretton et al. 2012), density and coverage (Naeem et al. 2020,
https://arxiv.org/abs/2002.09797). What the clouds are good for: zero-shot pass rate, and classifiers that are
trained on synthesized features alone and tested on real ones. Everything is computed in fp64 and is deterministic.

Notation: `N` real features, `M` synthesized features, `C` classes, `D` embedding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.generators.checks import check_at_least, check_rows


def frechet_gaussian(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) of two Gaussians, from means `(D,)` and covariances `(D, D)`.

    tr (S_a S_b)^½ is the sum of the roots of the eigenvalues of S_a^½ S_b S_a^½, which is symmetric.

    Raises:
        ValueError: shapes that do not fit.
    """
    dim = len(mean_a)
    shapes = [tuple(t.shape) for t in (mean_a, cov_a, mean_b, cov_b)]
    if shapes != [(dim,), (dim, dim)] * 2:
        raise ValueError(f"shapes {shapes}; two means (D,), each with a covariance (D, D), are needed")
    mean_a, cov_a, mean_b, cov_b = (t.detach().double() for t in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def frechet_distance(synthesized: Tensor, real: Tensor) -> float:
    """`frechet_gaussian` of the means and covariances of two sets of features; 0 for equal sets.

    With few features it is biased upwards: `n` give a covariance of rank `n - 1` at most, and two samples of one
    distribution then lie in different subspaces. Compare only distances of equally large sets, and beside the
    distance between two halves of the real features.

    Raises:
        TypeError, ValueError: not two finite tensors `(N, D)` of one width with two features or more.
    """
    a, b = _pair(synthesized, real, at_least=2)
    return frechet_gaussian(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def median_distance(rows: Tensor) -> float:
    """Median Euclidean distance between different features: the usual bandwidth of a Gaussian kernel.

    Raises:
        TypeError, ValueError: not a finite `(N, D)` tensor of two features or more, or most are equal.
    """
    check_rows("rows", rows)
    _check_count("rows", rows, 2)
    median = float(F.pdist(rows.detach().double()).median())
    if median <= 0:
        raise ValueError("more than half of the distances between rows are 0; pass a bandwidth")
    return median


def mmd(synthesized: Tensor, real: Tensor, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy, unbiased, with the kernel exp(-|x - y|² / (2 bandwidth²)).

    Unbiased also for a handful of features: 0 on average for two samples of one distribution, so it can be negative.

    Args:
        bandwidth: `median_distance(real)` if None. Pass one number where several distances are to be compared.

    Raises:
        TypeError, ValueError: not two finite tensors `(N, D)` of one width with two features or more, or a bandwidth
            that is not positive.
    """
    a, b = _pair(synthesized, real, at_least=2)
    bandwidth = median_distance(real) if bandwidth is None else bandwidth
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise ValueError(f"bandwidth={bandwidth}: must be a positive number")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-_distances(x, y).square() / (2 * bandwidth**2)).exp()

    def within(x: Tensor) -> Tensor:
        return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))  # the diagonal is 1

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def density_coverage(synthesized: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage. A real feature's ball reaches to its `k`-th nearest other real one.

    Density: in how many balls a synthesized feature lies, on average, divided by `k`; about 1 for a set like the real
    one. Coverage: share of real balls that hold a synthesized feature. In many dimensions the middle of a cloud lies in
    most balls: features without any spread have a density far above 1 and a high coverage too, so read them together.

    Args:
        k: 5 as in the paper.

    Raises:
        TypeError, ValueError: not two finite tensors `(N, D)` of one width, or fewer than k + 1 real features.
    """
    check_at_least("k", k, 1)
    fake, true = _pair(synthesized, real)
    if len(true) <= k:
        raise ValueError(f"k={k} with {len(true)} real rows; pass k={len(true) - 1} or less, or more rows")
    radius = _distances(true, true).fill_diagonal_(-1.0).kthvalue(k + 1, dim=1).values  # a feature is not its own
    inside = _distances(fake, true) < radius
    return float(inside.sum(dim=1).double().mean() / k), float(inside.any(dim=0).double().mean())


def class_cosine(
    synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, *, centred: bool = False
) -> float:
    """Cosine of each class's synthesized mean to its real mean, averaged over the classes.

    Args:
        labels, real_labels: `(M,)` and `(N,)`, classes 0 to C - 1, each in both.
        centred: subtract from each side the mean of its own class means first. All image features of a CLIP model
            share a direction, which makes plain cosines high for any class; centred ones compare how the classes lie
            to each other, and are 0 on average for a generator that knows no class.

    Raises:
        TypeError, ValueError: features or labels that do not fit, or a class without features.
    """
    a, b, labels, real_labels = _labelled(synthesized, labels, real, real_labels)
    means, real_means = _class_means(a, labels), _class_means(b, real_labels)
    if centred:
        means, real_means = means - means.mean(0), real_means - real_means.mean(0)
    return float(F.cosine_similarity(means, real_means).mean())


def class_mmd(
    synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, bandwidth: float | None = None
) -> float:
    """`mmd` of each class's features, averaged over the classes: right clouds in the wrong class count as wrong.

    Args:
        bandwidth: `median_distance` of all real features if None, one for all classes.

    Raises:
        TypeError, ValueError: as `class_cosine` and `mmd`; every class needs two features on both sides.
    """
    a, b, labels, real_labels = _labelled(synthesized, labels, real, real_labels)
    bandwidth = median_distance(real) if bandwidth is None else bandwidth
    each = [mmd(a[labels == c], b[real_labels == c], bandwidth) for c in range(int(real_labels.max()) + 1)]
    return sum(each) / len(each)


def zero_shot_accuracy(rows: Tensor, labels: Tensor, class_embeddings: Tensor) -> float:
    """Share of features whose nearest class embedding `(C, D)` by cosine is their own class.

    Of synthesized features this is the pass rate. Far above that of real ones means that they are cleaner than real
    images and teach a classifier little.

    Raises:
        TypeError, ValueError: features, labels or embeddings that do not fit.
    """
    check_rows("class_embeddings", class_embeddings)
    check_rows("rows", rows, class_embeddings.shape[1])
    labels = _labels("labels", labels, rows, len(class_embeddings))
    scores = _unit(rows) @ _unit(class_embeddings).to(rows.device).T
    return _accuracy(scores, labels)


def nearest_mean_accuracy(synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Train on synthesized, test on real: share of features nearest, by cosine, to their class's synthesized mean.

    Raises:
        TypeError, ValueError: as `class_cosine`.
    """
    a, b, labels, real_labels = _labelled(synthesized, labels, real, real_labels)
    return _accuracy(_unit(b) @ _unit(_class_means(a, labels)).T, real_labels)


def ridge_accuracy(
    synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, penalty: float = 0.3
) -> float:
    """Train on synthesized, test on real: a linear classifier by ridge regression to one-hot targets, in closed form.

    Unlike the nearest mean it uses the shape of the clouds: directions in which classes vary weigh less.

    Args:
        penalty: in units of the features' average variance per dimension (0.3: best of seven on the known classes
            of DTD and Stanford Cars in CLIP's features, real ones on both sides). Classes weigh equally, however many
            features they have.

    Raises:
        TypeError, ValueError: as `class_cosine`, or a penalty that is not positive.
    """
    if not (penalty > 0 and math.isfinite(penalty)):
        raise ValueError(f"penalty={penalty}: must be a positive number")
    a, b, labels, real_labels = _labelled(synthesized, labels, real, real_labels)
    weight = 1.0 / torch.bincount(labels)[labels].double()
    weight = weight / weight.sum()
    mean = weight @ a
    x, targets = a - mean, F.one_hot(labels).double()
    covariance = x.T @ (weight[:, None] * x)
    scale = covariance.trace() / len(covariance)
    if scale <= 0:
        raise ValueError("all synthesized rows are equal; a classifier cannot be trained on them")
    penalized = covariance + penalty * scale * torch.eye(len(covariance), dtype=a.dtype, device=a.device)
    solution = torch.linalg.solve(penalized, x.T @ (weight[:, None] * (targets - weight @ targets)))
    return _accuracy((b - mean) @ solution, real_labels)  # the intercept is 1 / C for every class


def measure_synthesized(
    synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, class_embeddings: Tensor, k: int = 5
) -> dict[str, float]:
    """All of the above: a number each for `cosine`, `cosine_centred`, `frechet`, `mmd` (within classes), `density`,
    `coverage`, `pass_rate`, and the accuracies on real features `nearest_mean`, `ridge` and `zero_shot`.

    Shares and accuracies are between 0 and 1. Fréchet distance, density and coverage take all classes as one cloud,
    because a class has too few real features for them.

    Args:
        class_embeddings: `(C, D)`, row `c` for label `c`.

    Raises:
        TypeError, ValueError: as the single functions.
    """
    four = synthesized, labels, real, real_labels
    density, coverage = density_coverage(synthesized, real, k)
    return {
        "cosine": class_cosine(*four),
        "cosine_centred": class_cosine(*four, centred=True),
        "frechet": frechet_distance(synthesized, real),
        "mmd": class_mmd(*four),
        "density": density,
        "coverage": coverage,
        "pass_rate": zero_shot_accuracy(synthesized, labels, class_embeddings),
        "nearest_mean": nearest_mean_accuracy(*four),
        "ridge": ridge_accuracy(*four),
        "zero_shot": zero_shot_accuracy(real, real_labels, class_embeddings),
    }


def _pair(synthesized: Tensor, real: Tensor, at_least: int = 1) -> tuple[Tensor, Tensor]:
    check_rows("real", real)
    check_rows("synthesized", synthesized, real.shape[1])
    for name, features in (("real", real), ("synthesized", synthesized)):
        _check_count(name, features, at_least)
    return synthesized.detach().double(), real.detach().to(synthesized.device).double()


def _check_count(name: str, features: Tensor, at_least: int) -> None:
    if len(features) < at_least:
        raise ValueError(
            f"{name} has {len(features)} rows (of a class, where classes are compared); {at_least} are needed"
        )


def _labels(name: str, labels: Tensor, features: Tensor, n_classes: int | None = None) -> Tensor:
    """Checked labels as int64; without `n_classes` every class from 0 to the largest label must occur."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} is a {type(labels).__name__}; pass torch.as_tensor({name})")
    if labels.ndim != 1 or len(labels) != len(features):
        raise ValueError(
            f"{name} has shape {tuple(labels.shape)}; one label for each of {len(features)} rows is needed"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} is {labels.dtype}; class indices are needed: {name}.long()")
    labels = labels.to(features.device).long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        last = "C - 1" if n_classes is None else n_classes - 1
        raise ValueError(f"{name} go from {low} to {high}; class indices 0 to {last} are accepted")
    if n_classes is None and (absent := (torch.bincount(labels) == 0).nonzero()[:, 0].tolist()):
        raise ValueError(f"{name} has no row of the classes {absent[:5]}; number the classes from 0 without gaps")
    return labels


def _labelled(
    synthesized: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = _pair(synthesized, real)
    labels, real_labels = _labels("labels", labels, a), _labels("real_labels", real_labels, b)
    if int(labels.max()) != int(real_labels.max()):
        raise ValueError(
            f"labels of {int(labels.max()) + 1} synthesized and {int(real_labels.max()) + 1} real classes; compare "
            "the same classes, numbered from 0"
        )
    return a, b, labels, real_labels


def _class_means(features: Tensor, labels: Tensor) -> Tensor:
    counts = torch.bincount(labels)
    return features.new_zeros(len(counts), features.shape[1]).index_add_(0, labels, features) / counts[:, None]


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).double().mean())


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.detach().double(), dim=-1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """`(M, N)`; differences, not dot products, which would lose small distances to cancellation."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
