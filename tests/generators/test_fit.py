"""Training: what it may see, what it repeats, and whether it helps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from generator_world import D, World, make_world, seeded

from ogenlib.generators import class_neighbours, fit_generator, list_variants
from ogenlib.generators.train import pseudo_split

QUICK = {"iterations": 15, "batch_size": 16, "heads": 2, "hidden": 8}


def fit(world: World, variant: str = "joint", **settings):
    return fit_generator(world.features, world.labels, world.known, variant, **{**QUICK, **settings})


UNTRAINED = ("mapped", "shift")


def same(a, b) -> bool:
    first, second = a.state()[0], b.state()[0]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("variant", list_variants())
def test_a_seed_says_the_same_twice(world: World, variant: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (fit(world, variant, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again) and first.history == again.history
    assert same(first, other) == (variant in UNTRAINED)
    assert not first.training


def test_the_global_random_state_does_not_matter(world: World) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = fit(world)
        torch.manual_seed(1)
        assert same(first, fit(world))


def test_unit_length_is_made_and_the_order_of_images_is_kept_apart(world: World) -> None:
    model = fit(world)
    long = fit_generator(4 * world.features, world.labels, 2 * world.known, **QUICK)
    assert same(model, long)  # powers of two divide out exactly
    assert torch.equal(model.known.labels, world.labels.sort().values)


def test_the_loss_falls(world: World) -> None:
    for variant in list_variants():
        history = fit(world, variant, iterations=80, lr=3e-3).history
        if variant in UNTRAINED:
            assert history == []
        else:
            assert [r["iteration"] for r in history] == list(range(4, 81, 4))
            assert history[-1]["loss"] < history[0]["loss"]


def test_pseudo_unknown_classes_are_no_neighbours() -> None:
    similarity = torch.rand(12, 12, generator=seeded()).fill_diagonal_(-torch.inf)
    draws, seen = seeded(1), set()
    for _ in range(50):
        unknown, allowed = pseudo_split(similarity, 3, draws)
        columns = torch.isinf(allowed).all(dim=0).nonzero()[:, 0].tolist()
        assert columns == sorted(unknown.tolist()) and len(columns) == 3
        seen |= set(columns)
    assert seen == set(range(12))
    unknown, allowed = pseudo_split(similarity, 0, draws)
    assert unknown.tolist() == list(range(12)) and torch.equal(allowed, similarity)


@pytest.mark.parametrize("variant", ["joint", "released"])
def test_targets_and_neighbours_of_a_step(world: World, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are images of the query's class; keys never include a class that is a target in the same step."""
    from ogenlib.generators.base import variant_class

    kind, steps = variant_class(variant), []
    original = kind.training_loss

    def spy(self, query, keys, values, target):
        steps.append((query, keys, values, target))
        return original(self, query, keys, values, target)

    monkeypatch.setattr(kind, "training_loss", spy)
    model = fit(world, variant, batch_size=64)
    known = model.known
    for query, keys, values, target in steps:
        classes = torch.cdist(query, known.embeddings).argmin(dim=-1)
        near = torch.cdist(keys, known.embeddings[None]).argmin(dim=-1)
        assert (near != classes[:, None]).all()
        image = torch.cdist(target, known.features).argmin(dim=-1)
        assert torch.equal(known.labels[image], classes)
        if variant == "joint":
            assert not set(near.flatten().tolist()) & set(classes.tolist())
            picked = torch.cdist(values.flatten(0, 1), known.features).min(dim=-1)
            assert picked.values.max() < 1e-3  # real images ...
            assert torch.equal(known.labels[picked.indices], near.flatten())  # ... of the neighbours
        else:
            expected = class_neighbours(
                known.embeddings, known.embeddings, 3, image_means=known.means, by="image", exclude_self=True
            )[0]
            assert torch.equal(near, expected[classes])
            share = (values - known.means[near]) / known.stds[near]
            assert share.min() > -1e-3 and share.max() < 1 + 1e-3  # one-sided noise


def test_two_branches_of_the_released_code(world: World) -> None:
    model = fit(world, "released").double()
    draw = [torch.randn(s, generator=seeded(i), dtype=torch.float64) for i, s in enumerate(((2, 16), (2, 3, 16)))]
    query, target, keys, values = draw[0], draw[0].flip(0), draw[1], draw[1].flip(0)
    branch_u = sum((model(query, keys, values)[i] - target[i]).square().sum() for i in range(2)) / 2
    branch_k = 0.0
    for i in range(2):
        for j in range(3):
            back = model(keys[i : i + 1, j], query[i : i + 1, None], target[i : i + 1, None])[0]
            branch_k += (back - values[i, j]).square().sum() / 6
    assert torch.allclose(model.training_loss(query, keys, values, target), branch_u + branch_k)


def test_the_unknown_classes_change_nothing(world: World) -> None:
    """The fit has no way to see them: synthesis for any query leaves the trained state as it was."""
    model = fit(world)
    before = model.state()[0]
    model.synthesize(world.unknown + 1, 4, generator=seeded())
    assert all(torch.equal(value, before[name]) for name, value in model.state()[0].items())
    assert same(model, fit(make_world(n_unknown=12)))
    stored = model.state()[0]["known.features"]
    assert torch.cdist(world.unknown_features.flatten(0, 1), stored).min() > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_synthesized_features_are_nearer_to_unseen_classes_than_the_nearest_known_class(seed: int) -> None:
    world = make_world(n_known=200, n_images=12, rank=D, seed=seed)
    model = fit(world, iterations=300, batch_size=128)
    truth = F.normalize(world.unknown_features.mean(dim=1), dim=-1)
    rows = model.synthesize(world.unknown, 64, generator=seeded()).view(len(truth), 64, -1)
    made = F.normalize(rows.mean(dim=1), dim=-1)
    nearest = model.known.means[class_neighbours(world.unknown, world.known, 1)[0][:, 0]]
    ours, theirs = (F.cosine_similarity(truth, m, dim=-1) for m in (made, nearest))
    assert ours.mean() > theirs.mean() + 0.02
    assert (ours > theirs).float().mean() >= 0.5
    anyone = model.known.means.mean(dim=0).expand_as(truth)  # the class's own name must add something
    assert ours.mean() > F.cosine_similarity(truth, anyone, dim=-1).mean() + 0.02


@pytest.mark.parametrize("variant", list_variants())
def test_clouds_are_as_wide_as_real_ones(world: World, variant: str) -> None:
    model = fit(world, variant, iterations=100)
    real = world.unknown_features
    made = model.synthesize(world.unknown, 200, generator=seeded()).view(len(real), 200, -1)
    real_width, width = (x.var(dim=1).sum(dim=-1).mean() for x in (real, made))
    assert 0.7 < width / real_width < 1.3


def test_without_residuals_clouds_are_too_narrow(world: World) -> None:
    model = fit(world, iterations=100, spread="none")
    made = model.synthesize(world.unknown, 200, generator=seeded()).view(len(world.unknown), 200, -1)
    assert made.var(dim=1).sum(-1).mean() < 0.7 * world.unknown_features.var(dim=1).sum(-1).mean()


def rejected(message: str, error: type[Exception] = ValueError, **change) -> None:
    world = make_world(n_known=8, n_images=3)
    args = {"features": world.features, "labels": world.labels, "class_embeddings": world.known, **QUICK, **change}
    with pytest.raises(error, match=message):
        fit_generator(**args)


def with_row(rows: torch.Tensor, row: int, value: float) -> torch.Tensor:
    changed = rows.clone()
    changed[row, -1 if value else slice(None)] = value
    return changed


def test_refusals() -> None:
    world = make_world(n_known=8, n_images=3)
    x, y, w = world.features, world.labels, world.known
    rejected(
        "variant='gan': must be one of joint, joint-shift, mapped, per-class, released, shift, text-only", variant="gan"
    )
    rejected(r"features has shape \(24, 4, 4\); a non-empty \(rows, D\)", features=x.view(24, 4, 4))
    rejected("features is torch.int64; floating-point rows are needed", features=(10 * x).long())
    rejected("features is 15 wide and 16 is needed", features=x[:, 1:])
    rejected("features is a list; pass", error=TypeError, features=x.tolist())
    rejected(r"features: row 17 holds NaN or inf \(1 such", features=with_row(x, 17, torch.nan))
    rejected("features: row 5 holds NaN or inf", features=with_row(x, 5, -torch.inf))
    rejected("features: row 2 is all zeros", features=with_row(x, 2, 0.0))
    rejected("class_embeddings: row 1 holds NaN", class_embeddings=with_row(w, 1, torch.nan))
    rejected("labels is a list; pass torch.as_tensor", error=TypeError, labels=y.tolist())
    rejected(r"labels has shape \(23,\); one label for each of 24", labels=y[1:])
    rejected("labels is torch.float32; class indices are needed: labels.long", labels=y.float())
    rejected(r"labels\[3\] = 8; .* 0 to 7", labels=torch.where(torch.arange(24) == 3, 8, y))
    rejected(r"labels\[0\] = -1", labels=torch.where(torch.arange(24) == 0, -1, y))
    rejected(
        r"2 classes have no images, by index: \[4, 6\]; add images or drop", labels=y - ((y == 4) | (y == 6)).long()
    )
    rejected("k=7 .* of 8 known classes 2 are held out .* leaves 6 .* pass k=6 or less", k=7)
    rejected("k=8 .* leaves 7 .* pass k=7 or less", k=8, held_out=0)
    rejected("held_out=1: must be 0 or more and below 1", held_out=1)
    rejected("iterations=0", iterations=0)
    rejected("batch_size=0", batch_size=0)
    rejected("lr=nan: must be a positive number", lr=float("nan"))
    rejected("by='sound': must be one of text, image, both", by="sound")
    rejected("unexpected keyword argument 'depth'", error=TypeError, depth=3)
    one = torch.arange(8)
    rejected("spread='residual' needs .* pass spread='none'", features=x[:8], labels=one)
    assert fit_generator(x[:8], one, w, spread="none", **QUICK).history


def test_the_number_of_pseudo_known_classes_is_the_limit() -> None:
    world = make_world(n_known=8, n_images=3)
    fit(world, k=6)
    fit(world, k=7, held_out=0.0)


def test_a_diverging_loss_is_named(world: World) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at iteration \d+; lower lr"):
        fit(world, "text-only", lr=1e30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_goes_in_and_fp32_comes_out(world: World, dtype: torch.dtype) -> None:
    model = fit_generator(world.features.to(dtype), world.labels.int(), world.known.to(dtype), **QUICK)
    assert model.synthesize(world.unknown.to(dtype), 2, generator=seeded()).dtype == torch.float32


def test_the_history_is_an_average_of_all_steps(world: World) -> None:
    history = fit(world, iterations=45).history  # 22 windows of 2, and one step left
    assert history[-1]["iteration"] == 45
    assert all(a["iteration"] < b["iteration"] for a, b in pairwise(history))
