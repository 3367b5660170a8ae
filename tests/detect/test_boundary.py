"""The columns of evidence and what is learned from them, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.detect.boundary import Plan, default_weights, learn, separating_weights
from ogenlib.detect.evidence import Evidence, Means, from_names, soft_max
from ogenlib.detect.images import Images

PLAN = Plan(0.01, 0.02, 2, "held-out", 2, 0.1, 1.5, 0)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def images(z: Tensor, y: Tensor) -> Images:
    return Images.known(z, y, int(y.max()) + 1, z.shape[1], z.device)


def test_soft_max_is_the_maximum_with_a_bonus_for_company() -> None:
    s = torch.tensor([[0.3, 0.1], [0.2, 0.2]])
    torch.testing.assert_close(soft_max(s, 1e-4), torch.tensor([0.3, 0.2 + 1e-4 * math.log(2)]))
    expected = 0.5 * torch.log(torch.exp(s / 0.5).sum(dim=1))
    torch.testing.assert_close(soft_max(s, 0.5), expected)


def test_columns_of_names_alone() -> None:
    z, w = rows(5, 8), rows(3, 8, seed=1)
    found = Evidence(w, None, None, 0.1, 0.02)(z)
    torch.testing.assert_close(found, torch.stack([soft_max(z @ w.T, 0.1), -(z @ w.T).mean(dim=1)], dim=1))


def test_other_names_take_the_place_of_the_mean() -> None:
    z, w, u = rows(5, 8), rows(3, 8, seed=1), rows(4, 8, seed=2)
    torch.testing.assert_close(Evidence(w, u, None, 0.1, 0.02)(z)[:, 1], -soft_max(z @ u.T, 0.1))


def test_means_are_of_classes_and_not_of_images() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    means = Means.of([(z, torch.tensor([0, 0, 0, 1]))], rows(2, 2))
    torch.testing.assert_close(means.centre, torch.tensor([0.5, 0.5]))
    half = 0.5**0.5
    torch.testing.assert_close(means.directions, torch.tensor([[half, -half], [-half, half]]))


def test_a_class_without_images_gets_the_mean_that_its_name_foretells() -> None:
    names = rows(40, 6)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3))).Q
    images = F.normalize(names @ turn, dim=-1)
    seen = torch.arange(39)
    found = Means.of([(images[:39], seen)], names).directions[39]
    true = F.normalize(images[39] - images[:39].mean(dim=0), dim=0)
    assert float(found @ true) > 0.95


def test_ridge_gives_back_a_linear_map() -> None:
    names, turn = 100 * rows(30, 4).double(), rows(4, 3, seed=1).double()
    targets = (names - names.mean(dim=0)) @ turn
    torch.testing.assert_close(from_names(names, targets, names), targets, rtol=1e-3, atol=1e-2)


def test_weights_are_those_of_the_discriminant() -> None:
    draws = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    known = torch.randn(20_000, 2, generator=draws) @ mix + torch.tensor([1.0, 1.2])
    unknown = torch.randn(20_000, 2, generator=draws) @ mix
    found = separating_weights([known], [unknown], 0.0)
    direction = torch.linalg.solve(mix.T @ mix, torch.tensor([1.0, 1.2]))
    assert found is not None
    torch.testing.assert_close(found, direction / direction.max(), atol=0.05, rtol=0)


def test_a_column_never_counts_against_the_known() -> None:
    draws = torch.Generator().manual_seed(0)
    unknown = torch.randn(500, 2, generator=draws)
    found = separating_weights([torch.randn(500, 2, generator=draws) + torch.tensor([1.0, -1.0])], [unknown], 0.1)
    assert found is not None
    assert found.tolist() == [1.0, 0.0]
    assert separating_weights([unknown - 1], [unknown], 0.1) is None
    assert separating_weights([torch.ones(5, 2)], [torch.ones(5, 2)], 0.1) is None
    assert separating_weights([], [], 0.1) is None


@pytest.mark.parametrize("classes", [1, 3])
def test_too_few_classes_fall_back_on_fixed_weights(classes: int) -> None:
    z, y = rows(classes * 4, 8), torch.arange(classes).repeat_interleave(4)
    evidence, weights = learn(rows(classes, 8, seed=1), None, images(z, y), None, PLAN)
    torch.testing.assert_close(weights, default_weights(evidence))
    assert weights.tolist() == pytest.approx([1.0, 0.3, 0.1])


def test_one_image_a_class_leaves_nothing_to_hold_out() -> None:
    evidence, weights = learn(rows(8, 8, seed=1), None, images(rows(8, 8), torch.arange(8)), None, PLAN)
    torch.testing.assert_close(weights, default_weights(evidence))


def test_learning_depends_on_the_seed_and_on_nothing_else() -> None:
    w = rows(16, 8, seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = learn(w, None, None, None, PLAN)[1], learn(w, None, None, None, PLAN)[1]
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
