"""A generator that trains in a loop of somebody else's: `start_generator` and `regression_loss`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from generator_world import D, World, make_world, seeded

from ogenlib.generators import (
    JointGenerator,
    class_neighbours,
    fit_generator,
    list_variants,
    regression_loss,
    start_generator,
)
from ogenlib.generators.train import training_similarity

SHAPE = {"heads": 2, "hidden": 8}
TRAINED = [v for v in list_variants() if v not in ("mapped", "shift")]


def start(world: World, variant: str = "joint", **settings: Any):
    return start_generator(world.features, world.labels, world.known, variant, **{**SHAPE, **settings})


@pytest.mark.parametrize("variant", list_variants())
def test_it_starts_untrained_with_all_it_knows(world: World, variant: str) -> None:
    before = torch.get_rng_state()
    model, again, other = (start(world, variant, seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training and model.history == [] and model.variant == variant
    assert torch.equal(model.require_known().embeddings, F.normalize(world.known, dim=-1))
    tensors = [dict(m.named_parameters()) for m in (model, again, other)]
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert all(torch.equal(value, tensors[2][name]) for name, value in tensors[0].items()) == (
        variant in ("mapped", "shift")
    )
    rows = model.synthesize(world.unknown, 2, generator=seeded())
    assert rows.shape == (2 * len(world.unknown), D) and rows.isfinite().all()


@pytest.mark.parametrize("variant", TRAINED)
def test_the_loop_of_fit_generator_written_out(world: World, variant: str) -> None:
    iterations, lr, decay = 12, 2e-3, 0.1
    expected = fit_generator(
        world.features,
        world.labels,
        world.known,
        variant,
        iterations=iterations,
        batch_size=16,
        lr=lr,
        weight_decay=decay,
        seed=5,
        dropout=0.3,
        by="both",
        held_out=0.4,
        **SHAPE,
    )
    model, draws = start(world, variant, seed=5, dropout=0.3, by="both", held_out=0.4), seeded(5)
    untrained = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    with torch.random.fork_rng():
        torch.manual_seed(5)  # of dropout
        model.train()
        for _ in range(iterations):
            optimizer.zero_grad()
            regression_loss(model, 16, draws).backward()
            optimizer.step()
            schedule.step()
    got = dict(model.named_parameters())
    for name, value in expected.named_parameters():
        assert torch.equal(got[name], value)
    assert not all(torch.equal(got[name], value) for name, value in untrained.items())


def test_the_loss_of_a_shift_by_hand() -> None:
    """Without parameters, at k = 1 and one image a class, only the division of the classes is drawn."""
    world = make_world(n_known=9, n_images=1)
    model = start(world, "shift", k=1, held_out=0.0, spread="none")
    known, images = F.normalize(world.known, dim=-1), world.features[world.labels.argsort()]
    near = class_neighbours(known, known, 1, exclude_self=True)[0][:, 0]
    errors = (images[near] - known[near] + known - images).square().sum(-1)
    possible = {round(float(e), 4) for e in errors}
    assert len(possible) > 4
    singles = {round(float(regression_loss(model, 1, seeded(s))), 4) for s in range(80)}
    assert singles == possible
    assert regression_loss(model, 4000, seeded()).item() == pytest.approx(errors.mean().item(), rel=0.05)


def test_the_similarity_may_be_kept(world: World) -> None:
    model = start(world)
    kept = training_similarity(model)
    before = kept.clone()
    first, again = regression_loss(model, 16, seeded(1)), regression_loss(model, 16, seeded(1), similarity=kept)
    assert torch.equal(first, again) and torch.equal(kept, before)
    other = regression_loss(model, 16, seeded(1), similarity=-before.clone().fill_diagonal_(torch.inf))
    assert not torch.equal(first, other)  # it is used
    assert not torch.equal(first, regression_loss(model, 16, seeded(2)))


def test_by_and_held_out_of_the_start_hold_in_the_loss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = JointGenerator.training_loss

    def spy(self, query, keys, values, target):
        seen.append(torch.cdist(keys, self.known.embeddings[None]).argmin(dim=-1))
        return original(self, query, keys, values, target)

    monkeypatch.setattr(JointGenerator, "training_loss", spy)
    model = start(world, held_out=0.0, by="image")
    assert model.training_settings == {"seed": 0, "held_out": 0.0, "by": "image"}
    regression_loss(model, 200, seeded())
    known = model.require_known()
    expected = class_neighbours(
        known.embeddings, known.embeddings, 3, image_means=known.means, by="image", exclude_self=True
    )[0]
    assert {tuple(r) for r in seen[0].tolist()} == {tuple(r) for r in expected.tolist()}


@pytest.mark.parametrize("variant", TRAINED)
def test_the_gradient_is_the_generators_alone(world: World, variant: str) -> None:
    features, embeddings = world.features.clone().requires_grad_(), world.known.clone().requires_grad_()
    model = start_generator(features, world.labels, embeddings, variant, **SHAPE)
    regression_loss(model, 16, seeded()).backward()
    assert features.grad is None and embeddings.grad is None
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_refusals() -> None:
    world = make_world(n_known=8, n_images=3)
    for settings, message in (
        ({"variant": "gan"}, "variant='gan': must be one of"),
        ({"by": "sound"}, "by='sound': must be one of text, image, both"),
        ({"held_out": 1.0}, r"held_out=1\.0: must be 0 or more and below 1"),
        ({"k": 7}, "k=7 .* leaves 6 .* pass k=6 or less"),
        ({"spread": "wide"}, "spread='wide'"),
    ):
        with pytest.raises(ValueError, match=message):
            start(world, **settings)
    one = torch.arange(8)
    with pytest.raises(ValueError, match=r"spread='residual' needs .* pass spread='none'"):
        start_generator(world.features[:8], one, world.known, **SHAPE)
    with pytest.raises(ValueError, match=r"JointGenerator has no known classes; .*fit_generator"):
        regression_loss(JointGenerator(D, **SHAPE), 4, seeded())
