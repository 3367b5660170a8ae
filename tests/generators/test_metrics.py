"""Metrics of synthesized features against closed forms and plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from generator_world import World, seeded
from torch import Tensor

from ogenlib.generators import (
    class_cosine,
    class_mmd,
    density_coverage,
    fit_generator,
    frechet_distance,
    frechet_gaussian,
    measure_synthesized,
    median_distance,
    mmd,
    nearest_mean_accuracy,
    ridge_accuracy,
    zero_shot_accuracy,
)


def cloud(n: int, dim: int = 6, shift: float = 0.0, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=seeded(seed)) + shift


def labels_of(counts: list[int]) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_frechet_of_diagonal_gaussians_is_the_closed_form() -> None:
    mean_a, mean_b = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    std_a, std_b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 0.5, 2.0])
    expected = float((mean_a - mean_b).square().sum() + (std_a - std_b).square().sum())
    found = frechet_gaussian(mean_a, std_a.square().diag(), mean_b, std_b.square().diag())
    assert found == pytest.approx(expected, abs=1e-9)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    # For 2 x 2 matrices tr (AB)^½ = (tr AB + 2 (det A det B)^½)^½.
    a, b = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.3], [-0.3, 3.0]]).double()
    cross = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * cross)
    zero = torch.zeros(2)
    assert frechet_gaussian(zero, a, zero, b) == pytest.approx(expected, abs=1e-12)
    assert frechet_gaussian(zero, b, zero, a) == pytest.approx(expected, abs=1e-12)


def test_frechet_of_rows() -> None:
    rows = cloud(40)
    turn = torch.linalg.qr(cloud(6, 6, seed=1))[0]
    assert frechet_distance(rows, rows.flip(0)) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(rows + 2.0, rows) == pytest.approx(6 * 4.0, rel=1e-5)
    assert frechet_distance(3 * rows @ turn, rows @ turn) == pytest.approx(frechet_distance(3 * rows, rows), rel=1e-4)


def test_few_rows_make_the_frechet_distance_too_large() -> None:
    distances = [frechet_distance(cloud(n, 20), cloud(n, 20, seed=1)) for n in (5, 50, 500)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 5 * distances[2]


def plain_mmd(a: Tensor, b: Tensor, bandwidth: float) -> float:
    def kernel(x: Tensor, y: Tensor) -> float:
        return math.exp(-float((x.double() - y.double()).square().sum()) / (2 * bandwidth**2))

    def within(x: Tensor) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(kernel(x[i], x[j]) for i, j in pairs) / len(pairs)

    return within(a) + within(b) - 2 * sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))


def test_mmd_is_the_plain_double_sum() -> None:
    a, b = cloud(7), cloud(9, shift=0.4, seed=1)
    assert mmd(a, b, 1.7) == pytest.approx(plain_mmd(a, b, 1.7), abs=1e-12)
    assert mmd(a, b) == pytest.approx(plain_mmd(a, b, median_distance(b)), abs=1e-12)
    between = torch.stack([(b[i] - b[j]).norm() for i in range(9) for j in range(i)])
    assert median_distance(b) == pytest.approx(float(between.median()), rel=1e-6)


def test_mmd_of_two_pairs_by_hand() -> None:
    a, b = torch.tensor([[1.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 2.0], [2.0, 2.0]])
    near, far = math.exp(-0.5), math.exp(-1.0)
    assert mmd(a, b, 1.0) == pytest.approx(near + near - (near + far), abs=1e-12)


def test_mmd_of_gaussians_is_unbiased() -> None:
    # E k = (h² / (h² + 2))^(D/2) exp(-|m|² / (2 (h² + 2))) for two unit Gaussians whose means are m apart.
    h, dim, shift = 1.5, 2, 1.0
    peak = (h**2 / (h**2 + 2)) ** (dim / 2)
    expected = 2 * peak * (1 - math.exp(-dim * shift**2 / (2 * (h**2 + 2))))
    for offset, value in ((0.0, 0.0), (shift, expected)):
        found = [mmd(cloud(8, dim, seed=2 * s), cloud(8, dim, offset, seed=2 * s + 1), h) for s in range(400)]
        error = torch.tensor(found).std() / len(found) ** 0.5
        assert abs(sum(found) / len(found) - value) < 4 * error
    assert min(found) < 0 < expected


@pytest.mark.parametrize("k", [1, 3, 5])
def test_density_and_coverage_are_the_plain_loops(k: int) -> None:
    fake, real = cloud(30, 3, 0.5), cloud(20, 3, seed=1)
    reach = [sorted(float((x - y).norm()) for j, y in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)]
    inside = [[float((f - x).norm()) < r for x, r in zip(real, reach, strict=True)] for f in fake]
    density = sum(sum(row) for row in inside) / (k * len(fake))
    coverage = sum(any(row[j] for row in inside) for j in range(len(real))) / len(real)
    assert density_coverage(fake, real, k) == pytest.approx((density, coverage))


def test_density_and_coverage_of_known_cases() -> None:
    real = cloud(400, 4)
    density, coverage = density_coverage(cloud(400, 4, seed=1), real)
    assert density == pytest.approx(1.0, abs=0.1) and coverage > 0.9  # 1 - 2^-5 for equal distributions
    assert density_coverage(real + 100, real) == (0.0, 0.0)
    high = cloud(400, 50)
    density, coverage = density_coverage(high.mean(0, keepdim=True), high)
    assert density > 10 and coverage > 0.5  # one row in the middle is in most balls: neither is a merit


def test_repeated_real_rows_are_not_their_own_neighbours_alone() -> None:
    real = torch.tensor([[1.0], [1.0], [2.0], [4.0]])
    # Balls of k=2: radius 1 (the other 1, then 2), 1, 1, 3; the ball is open.
    assert density_coverage(torch.tensor([[1.5]]), real, 2) == pytest.approx((4 / 2, 1.0))
    assert density_coverage(torch.tensor([[2.0]]), real, 2) == pytest.approx((2 / 2, 0.5))


def test_cosine_of_class_means() -> None:
    real = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    made = torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 3.0]])
    a, b = torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1])
    assert class_cosine(made, a, real, b) == pytest.approx((0.5**0.5 + 1) / 2)
    # About the centres (1, 2) and (½, ½): made at (±1, 0), real at ±(½, -½).
    assert class_cosine(made, a, real, b, centred=True) == pytest.approx(0.5**0.5)
    same = torch.ones(3, 2)
    assert class_cosine(same, a, real, b, centred=True) == 0.0 < class_cosine(same, a, real, b)
    assert class_cosine(real + 5, b, real, b, centred=True) == pytest.approx(1.0)


def test_class_mmd_sees_rows_in_the_wrong_class() -> None:
    real = torch.cat([cloud(30), cloud(30, shift=3.0, seed=1)])
    made = torch.cat([cloud(20, seed=2), cloud(20, shift=3.0, seed=3)])
    right, wrong, labels = labels_of([20, 20]), labels_of([20, 20]).flip(0), labels_of([30, 30])
    width = median_distance(real)
    expected = (mmd(made[:20], real[:30], width) + mmd(made[20:], real[30:], width)) / 2
    assert class_mmd(made, right, real, labels) == pytest.approx(expected)
    assert mmd(made, real) < 0.01 < 0.5 < class_mmd(made, wrong, real, labels)


def test_accuracies_by_hand() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    rows = torch.tensor([[2.0, 1.0], [1.0, 2.0], [0.1, 1.0], [1.0, 0.0]])
    assert zero_shot_accuracy(rows, torch.tensor([0, 0, 1, 1]), text) == 0.5
    assert zero_shot_accuracy(rows[:1], torch.tensor([1]), text) == 0.0  # not every class needs a row
    made = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert nearest_mean_accuracy(made, torch.tensor([0, 1]), rows, torch.tensor([1, 0, 0, 0])) == 0.75


def plain_ridge(x: Tensor, y: Tensor, test: Tensor, penalty: float) -> Tensor:
    """Scores from the normal equations with an explicit intercept that is not penalized."""
    x, test = x.double(), test.double()
    w = torch.tensor([1 / float((y == c).sum()) for c in y.tolist()], dtype=torch.float64)
    w /= w.sum()
    centred = x - w @ x
    scale = float((w[:, None] * centred.square()).sum()) / x.shape[1]
    design = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    matrix = design.T @ (w[:, None] * design)
    matrix += penalty * scale * torch.diag(torch.tensor([1.0] * x.shape[1] + [0.0], dtype=torch.float64))
    solution = torch.linalg.solve(matrix, design.T @ (w[:, None] * F.one_hot(y).double()))
    return torch.cat([test, torch.ones(len(test), 1, dtype=torch.float64)], dim=1) @ solution


@pytest.mark.parametrize("penalty", [0.01, 0.3, 10.0])
def test_ridge_is_the_regression_with_an_intercept(penalty: float) -> None:
    counts = [3, 12, 5]
    y, y_test = labels_of(counts), labels_of([60, 60, 60])
    centres = cloud(3, 5, seed=9)
    x, test = centres[y] + cloud(20, 5, seed=1), centres[y_test] + cloud(180, 5, seed=2)
    predicted = plain_ridge(x, y, test, penalty).argmax(1)
    expected = float((predicted == y_test).double().mean())
    assert ridge_accuracy(x, y, test, y_test, penalty) == pytest.approx(expected)
    assert 0.5 < expected < 1
    assert ridge_accuracy(x, y, test, y_test, penalty) == ridge_accuracy(x.flip(0), y.flip(0), test, y_test, penalty)


def test_ridge_uses_the_shape_that_the_nearest_mean_ignores() -> None:
    wide = torch.tensor([10.0, 0.2])  # classes differ along the narrow direction

    def draw(seed: int) -> Tensor:
        centres = torch.tensor([[40.0, 20.0], [40.0, 21.0]])
        return centres[labels_of([20, 20])] + wide * cloud(40, 2, seed=seed)

    four = draw(1), labels_of([20, 20]), draw(2), labels_of([20, 20])
    assert ridge_accuracy(*four, penalty=1e-4) > 0.95
    assert nearest_mean_accuracy(*four) < 0.8


def test_all_numbers_of_a_generator(world: World) -> None:
    real, labels = world.unknown_features.flatten(0, 1), labels_of([24] * 12)
    generator = fit_generator(world.features, world.labels, world.known, "text-only", iterations=200, seed=1)
    rows = generator.synthesize(world.unknown, 24, generator=seeded())
    made = measure_synthesized(rows, labels, real, labels, world.unknown)
    perfect = measure_synthesized(real, labels, real, labels, world.unknown)
    wrong = measure_synthesized(rows.roll(24, 0), labels, real, labels, world.unknown)
    for name in ("cosine", "cosine_centred", "nearest_mean", "ridge"):
        assert perfect[name] > made[name] > wrong[name] + 0.1, name
    assert perfect["mmd"] < made["mmd"] < wrong["mmd"] - 0.1
    for name in ("frechet", "density", "coverage"):  # of all classes together: they do not see the roll
        assert made[name] == pytest.approx(wrong[name]), name
    assert perfect["frechet"] == pytest.approx(0, abs=1e-6) and perfect["coverage"] == 1.0
    assert perfect["pass_rate"] == perfect["zero_shot"] == made["zero_shot"]
    assert made["pass_rate"] == zero_shot_accuracy(rows, labels, world.unknown)
    assert made["nearest_mean"] == nearest_mean_accuracy(rows, labels, real, labels)
    assert made["ridge"] == ridge_accuracy(rows, labels, real, labels)


TWO = torch.tensor([0, 1])
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "width": (lambda: frechet_distance(cloud(4, 3), cloud(4, 2)), ValueError, "3 wide and 2"),
    "one-row": (lambda: frechet_distance(cloud(4), cloud(1)), ValueError, "real has 1 rows"),
    "shapes": (lambda: frechet_gaussian(*[torch.zeros(2)] * 4), ValueError, r"\(2,\)"),
    "nan": (lambda: mmd(cloud(4).log(), cloud(4)), ValueError, "synthesized: row"),
    "bandwidth": (lambda: mmd(cloud(4), cloud(4), 0.0), ValueError, "bandwidth=0.0"),
    "median": (lambda: median_distance(torch.ones(4, 2)), ValueError, "pass a bandwidth"),
    "few-real": (lambda: density_coverage(cloud(9), cloud(5)), ValueError, "pass k=4 or less"),
    "k": (lambda: density_coverage(cloud(9), cloud(5), 0), ValueError, "k=0"),
    "list": (lambda: class_cosine(cloud(2), [0, 1], cloud(2), TWO), TypeError, "labels is a list"),  # type: ignore[arg-type]
    "count": (lambda: class_cosine(cloud(3), TWO, cloud(2), TWO), ValueError, "one label for each of 3"),
    "float": (lambda: class_cosine(cloud(2), TWO.float(), cloud(2), TWO), ValueError, "labels.long"),
    "gap": (lambda: class_cosine(cloud(2), 2 * TWO, cloud(2), TWO), ValueError, r"no row of the classes \[1\]"),
    "negative": (lambda: class_cosine(cloud(2), TWO, cloud(2), -TWO), ValueError, "real_labels go from -1"),
    "other": (lambda: class_cosine(cloud(2), TWO, cloud(2), 0 * TWO), ValueError, "2 synthesized and 1 real"),
    "range": (lambda: zero_shot_accuracy(cloud(2), TWO, cloud(1)), ValueError, "0 to 0 are"),
    "penalty": (lambda: ridge_accuracy(cloud(2), TWO, cloud(2), TWO, 0.0), ValueError, "penalty=0.0"),
    "equal": (lambda: ridge_accuracy(torch.ones(2, 6), TWO, cloud(2), TWO), ValueError, "are equal"),
}  # fmt: skip


@pytest.mark.parametrize("call, kind, message", BAD.values(), ids=BAD)
def test_bad_input_is_named(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
