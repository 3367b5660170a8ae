"""Densities of classes: against torch's Gaussians and a ridge regression written out, and how they are chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from ogenlib.generators import choose_evidence, fit_densities
from ogenlib.generators.episodes import divide


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world(classes: int = 8, shots: int = 6, dim: int = 12, views: int = 2, seed: int = 0, noise: float = 0.3) -> Any:
    """Embeddings of names, a hidden linear map from them to image means, and images of the first half of the names."""
    draws = seeded(seed)
    embeddings = F.normalize(torch.randn(classes, dim, generator=draws), dim=-1)
    means = torch.randn(dim, generator=draws) + embeddings @ torch.randn(dim, dim, generator=draws)
    labels = torch.arange(classes).repeat_interleave(shots)
    images = means[labels][:, None] + noise * torch.randn(len(labels), views, dim, generator=draws)
    return embeddings, F.normalize(images, dim=-1), labels


def test_the_discriminant_is_the_log_density_up_to_one_number() -> None:
    embeddings, images, labels = world()
    found = fit_densities(images, labels, embeddings, shrinkage=0.2)
    z = F.normalize(torch.randn(5, 12, generator=seeded(1)), dim=-1).double()
    covariance = found.covariance.double()
    log = torch.stack([MultivariateNormal(mean, covariance).log_prob(z) for mean in found.means.double()], dim=1)
    ours = found.discriminant(found.means)(z)
    torch.testing.assert_close(ours - ours[:, :1], log - log[:, :1], rtol=1e-4, atol=1e-4)


def test_means_and_covariance_are_those_of_the_images() -> None:
    embeddings, images, labels = world()
    found = fit_densities(images, labels, embeddings, shrinkage=0.25)
    rows, classes = images.flatten(0, 1), labels.repeat_interleave(2)
    means = torch.stack([rows[classes == c].mean(dim=0) for c in range(8)])
    torch.testing.assert_close(found.means, means)
    residuals = rows - means[classes]
    plain = residuals.T @ residuals / len(rows)
    expected = 0.75 * plain + 0.25 * plain.trace() / 12 * torch.eye(12)
    torch.testing.assert_close(found.covariance, expected)


def test_a_name_without_images_has_the_mean_that_ridge_regression_predicts() -> None:
    embeddings, images, labels = world(classes=8)
    known = 5
    seen = labels < known
    found = fit_densities(images[seen], labels[seen], embeddings[:known], ridge=0.5, slope=0.0)
    x = embeddings[:known].double() - embeddings[:known].double().mean(dim=0)
    y = found.means.double()
    penalty = 0.5 * x.square().sum(dim=1).mean()
    solution = torch.linalg.solve(x.T @ x + penalty * torch.eye(12), x.T @ (y - y.mean(dim=0)))  # the primal form
    new = embeddings[known:].double() - embeddings[:known].double().mean(dim=0)
    torch.testing.assert_close(
        found.predict(embeddings[known:]).double(), y.mean(0) + new @ solution, rtol=1e-4, atol=1e-5
    )


def test_little_ridge_gives_the_known_means_back_and_much_their_mean() -> None:
    embeddings, images, labels = world(classes=6, dim=12)
    close = fit_densities(images, labels, embeddings, ridge=1e-9, slope=0.0)
    torch.testing.assert_close(close.predict(embeddings), close.means, rtol=0, atol=1e-4)
    far = fit_densities(images, labels, embeddings, ridge=1e9, slope=0.0)
    torch.testing.assert_close(far.predict(embeddings), far.means.mean(0).expand(6, -1), rtol=0, atol=1e-4)


@settings(max_examples=20)
@given(scale=st.floats(0.1, 50), seed=st.integers(0, 1000))
def test_lengths_do_not_matter_and_views_are_images(scale: float, seed: int) -> None:
    embeddings, images, labels = world(seed=seed)
    a = fit_densities(images, labels, embeddings)
    b = fit_densities(scale * images.flatten(0, 1), labels.repeat_interleave(2), scale * embeddings)
    for name in ("means", "covariance"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(a.predict(embeddings), b.predict(embeddings), rtol=1e-3, atol=1e-5)


def test_drawn_features_have_the_means_and_the_generator_decides() -> None:
    embeddings, images, labels = world(dim=6, noise=0.1)
    found = fit_densities(images, labels, embeddings)
    drawn = found.draw(found.means, 4000, seeded(3))
    assert torch.equal(drawn, found.draw(found.means, 4000, seeded(3)))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(len(drawn)))
    cosines = F.cosine_similarity(drawn.view(8, 4000, 6).mean(1), found.means)
    assert cosines.min() > 0.995


def test_the_discriminant_names_images_of_classes_without_any() -> None:
    embeddings, images, labels = world(classes=40, shots=8, dim=16, noise=0.2)
    seen = labels < 30
    found = fit_densities(images[seen], labels[seen], embeddings[:30])
    logits = found.discriminant(found.predict(embeddings[30:]))(images[~seen][:, 0])
    assert (logits.argmax(1) + 30 == labels[~seen]).float().mean() > 0.5  # 0.1 by chance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ridge": 0.0}, "ridge=0.0: must be a positive number"),
        ({"shrinkage": 0.0}, "shrinkage=0.0: must be above 0"),
        ({"shrinkage": 1.5}, "shrinkage=1.5"),
        ({"labels": torch.zeros(48).long()}, "7 classes have no images"),
        ({"embeddings": torch.ones(1, 12)}, "two known classes or more"),
        ({"features": torch.ones(48, 2, 12)}, "says nothing of their spread"),
        ({"features": torch.ones(2, 2, 2, 2)}, r"\(N, D\) or \(N, V, D\) is needed"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    embeddings, images, labels = world()
    given = {"features": images, "labels": labels, "embeddings": embeddings, **changes}
    with pytest.raises(ValueError, match=message):
        fit_densities(given.pop("features"), given.pop("labels"), given.pop("embeddings"), **given)


# --- episodes ---------------------------------------------------------------------------------------------


@given(classes=st.integers(4, 12), shots=st.integers(2, 9), seed=st.integers(0, 10**6))
def test_an_episode_hides_classes_and_keeps_images_out(classes: int, shots: int, seed: int) -> None:
    labels = torch.arange(classes).repeat_interleave(shots)[torch.randperm(classes * shots, generator=seeded(seed))]
    one = divide(labels, classes, seeded(seed))
    assert sorted(one.classes.tolist()) == list(range(classes)) and 2 <= one.seen < classes
    assert not set(one.train.tolist()) & set(one.test.tolist())
    assert len(one.train) + len(one.test) == len(labels)
    seen = one.classes[: one.seen]
    assert set(labels[one.train].tolist()) == set(seen.tolist())  # every one, and none that is hidden
    assert set(labels[one.test].tolist()) == set(range(classes))


def test_what_helps_is_chosen_and_what_does_not_is_left_out() -> None:
    embeddings, images, labels = world(classes=24, shots=8, dim=16, noise=0.3)
    helpful = choose_evidence(images, labels, embeddings, 100.0, seeded(0), episodes=4)
    assert helpful.weight > 0 and helpful.ausuc is not None and helpful.ausuc[1] > helpful.ausuc[0] + 10
    # Where cosines with the names already say all, and images lie about them at random, there is nothing to add.
    own = F.normalize(embeddings[labels][:, None] + 0.05 * torch.randn(len(labels), 2, 16, generator=seeded(1)), dim=-1)
    assert choose_evidence(own, labels, embeddings, 100.0, seeded(0), episodes=4).weight == 0.0
    assert helpful == choose_evidence(images, labels, embeddings, 100.0, seeded(0), episodes=4)
    assert helpful.scale > 0


def test_too_little_to_choose_on_is_no_evidence() -> None:
    embeddings, images, labels = world(classes=3)
    assert choose_evidence(images, labels, embeddings, 100.0, seeded(0)).weight == 0.0
    embeddings, images, labels = world(classes=8, shots=1)
    found = choose_evidence(images, labels, embeddings, 100.0, seeded(0))
    assert found.weight == 0.0 and found.ausuc is None


def test_one_view_is_as_good_as_a_row() -> None:
    embeddings, images, labels = world(classes=8, views=1)
    several = choose_evidence(images, labels, embeddings, 50.0, seeded(2), episodes=2)
    assert several == choose_evidence(images[:, 0], labels, embeddings, 50.0, seeded(2), episodes=2)


def test_values_do_not_depend_on_the_dtype() -> None:
    embeddings, images, labels = world()
    a, b = fit_densities(images, labels, embeddings), fit_densities(images.half(), labels, embeddings.double())
    z: Tensor = images[:3, 0]
    torch.testing.assert_close(a.discriminant(a.means)(z), b.discriminant(b.means)(z).float(), rtol=2e-2, atol=2e-2)
