"""Synthesis: shapes, draws, chunks, gradients, residuals and the saved form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from generator_world import D, World, make_world, seeded
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ogenlib.generators import (
    ClassConditionalGenerator,
    JointGenerator,
    KnownClasses,
    class_neighbours,
    fit_generator,
    list_variants,
)
from ogenlib.generators.residuals import around_mean, draw_residuals

QUICK = {"iterations": 5, "batch_size": 16, "heads": 2, "hidden": 8}
CASES = [(variant, spread) for variant in list_variants() for spread in ("residual", "none")]
DRAWS_NOTHING = [("mapped", "none"), ("text-only", "none")]


@pytest.fixture(scope="module")
def models(world: World) -> dict[tuple[str, str], ClassConditionalGenerator]:
    return {(v, s): fit_generator(world.features, world.labels, world.known, v, spread=s, **QUICK) for v, s in CASES}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_rows_do_not_depend_on_chunks(models, world: World, case: tuple[str, str]) -> None:
    model = models[case]
    whole = model.synthesize(world.unknown, 7, generator=seeded(2))
    assert whole.shape == (12 * 7, D)
    assert torch.allclose(whole.norm(dim=-1), torch.ones(84), atol=1e-6)
    for chunk in (1, 3, 7, 10, 83, 84, 1000):
        pieces = list(model.iter_synthesize(world.unknown, 7, generator=seeded(2), chunk=chunk))
        assert {len(p) for p in pieces[:-1]} <= {chunk}
        assert torch.allclose(torch.cat(pieces), whole, atol=2e-6)


def test_pieces_of_a_chunk_change_nothing(models, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["joint", "none"]
    whole = model.synthesize(world.unknown, 7, generator=seeded(2))
    monkeypatch.setattr("ogenlib.generators.synthesis.ATTENTION_ROWS", 5)
    assert torch.allclose(model.synthesize(world.unknown, 7, generator=seeded(2)), whole, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_seeds(models, world: World, case: tuple[str, str]) -> None:
    model = models[case]
    one, again, other = (model.synthesize(world.unknown, 5, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (case in DRAWS_NOTHING)
    shared = seeded(0)
    assert torch.equal(model.synthesize(world.unknown, 5, generator=shared), one)
    assert torch.equal(model.synthesize(world.unknown, 5, generator=shared), one) == (case in DRAWS_NOTHING)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 20), st.sampled_from(CASES), st.integers(2, 9))
def test_shape_laws(u: int, n: int, chunk: int, case: tuple[str, str], dim: int) -> None:
    world = make_world(n_known=5, n_unknown=u, n_images=3, dim=dim)
    model = JointGenerator(dim, k=2, heads=2, spread=case[1])
    model.known = KnownClasses(world.features, world.labels, world.known)
    rows = model.synthesize(world.unknown, n, generator=seeded(), chunk=chunk)
    assert rows.shape == (u * n, dim)
    assert torch.allclose(rows.norm(dim=-1), torch.ones(u * n), atol=1e-5)


def test_rows_come_class_by_class(models, world: World) -> None:
    """The neighbours decide the residual, so each class can be checked on its own."""
    model = models["shift", "residual"]
    rows = model.synthesize(world.unknown, 300, generator=seeded()).view(12, 300, D).mean(dim=1)
    known = model.known
    near = class_neighbours(world.unknown, world.known, 3)[0]
    means = world.unknown + (known.means[near] - known.embeddings[near]).mean(dim=1)
    assert torch.equal(F.cosine_similarity(rows[:, None], means[None], dim=-1).argmax(dim=-1), torch.arange(12))


def test_random_images_of_the_neighbours_by_hand(models, world: World) -> None:
    """Plain shift without residuals: every row is the mean of three shifted real images."""
    model = models["shift", "none"]
    known = model.known
    near = class_neighbours(world.unknown, world.known, 3)[0]
    rows = model.synthesize(world.unknown, 4, generator=seeded()).view(12, 4, D)
    for u in range(12):
        a, b, c = (known.features[known.labels == k] - known.embeddings[k] for k in near[u])
        every = (a[:, None, None] + b[None, :, None] + c[None, None]) / 3 + world.unknown[u]
        candidates = F.normalize(every.flatten(0, 2), dim=-1)
        assert (candidates @ rows[u].T).max(dim=0).values.min() > 1 - 1e-5


def test_residuals_by_hand() -> None:
    generator = seeded(4)
    x = F.normalize(torch.randn(6, 4, generator=generator), dim=-1)
    known = KnownClasses(x, torch.tensor([0, 1, 1, 2, 2, 2]), torch.randn(3, 4, generator=generator))
    mean = x[3:].mean(dim=0)
    assert torch.allclose(known.means[2], mean)
    assert torch.allclose(known.stds[2], (x[3:] - mean).square().mean(dim=0).sqrt(), atol=1e-6)
    # Classes 0 (one image) and 2: only 2 can lend; the second number picks its image 1 of 0, 1, 2.
    got = draw_residuals(known, torch.tensor([[0, 2]]), torch.tensor([[0.0, 0.5]]))
    assert torch.allclose(got[0], (x[4] - mean) * 1.5**0.5, atol=1e-6)
    # Neighbour 0 alone has none: any class with two images lends.
    got = draw_residuals(known, torch.tensor([[0], [0]]), torch.tensor([[0.1, 0.0], [0.9, 0.0]]))
    assert torch.allclose(got[0], (x[1] - x[1:3].mean(dim=0)) * 2**0.5, atol=1e-6)
    assert torch.allclose(got[1], (x[3] - mean) * 1.5**0.5, atol=1e-6)
    # Unbiased length of the mean: |m|² = (n |mean|² - 1) / (n - 1).
    length = ((3 * mean.square().sum() - 1) / 2).clamp(min=0).sqrt()
    assert torch.allclose(known.lengths[2], length, atol=1e-6)
    assert torch.allclose(known.lengths[0], known.lengths[1:].mean())
    row = around_mean(known, torch.tensor([[0.0, 0.0, 0.0, 9.0]]), torch.tensor([[2, 2]]), torch.ones(1, 4))
    assert torch.allclose(row[0], F.normalize(torch.tensor([1.0, 1.0, 1.0, 1.0 + float(length)]), dim=0))


def test_residuals_come_evenly_from_all_images_of_the_neighbours() -> None:
    world = make_world(n_known=5, n_images=4)
    known = KnownClasses(world.features, world.labels, world.known)
    uniform = torch.rand(6000, 2, generator=seeded())
    rows = draw_residuals(known, torch.tensor([[3, 1]]).expand(6000, 2), uniform)
    all_residuals = known.enlarge[known.labels, None] * (known.features - known.means[known.labels])
    drawn = torch.bincount(torch.cdist(rows, all_residuals).argmin(dim=-1), minlength=20)
    assert drawn[known.labels == 3].min() > 600 and drawn[known.labels == 1].min() > 600
    assert drawn[(known.labels == 3) | (known.labels == 1)].sum() == 6000


def test_lengths_of_few_images_are_those_of_many() -> None:
    many = make_world(n_known=200, n_images=100)
    few = make_world(n_known=200, n_images=3)
    lengths = [KnownClasses(w.features, w.labels, w.known).lengths for w in (many, few)]
    assert abs(lengths[0].mean() - lengths[1].mean()) < 0.01
    too_long = KnownClasses(few.features, few.labels, few.known).means.norm(dim=-1)
    assert too_long.mean() > lengths[0].mean() + 0.02


def test_gradients_only_where_asked(models, world: World) -> None:
    for model in models.values():
        query = world.unknown.clone().requires_grad_()
        assert not model.synthesize(query, 3, generator=seeded()).requires_grad
        rows = model.synthesize(query, 3, generator=seeded(), grad=True)
        assert torch.equal(rows.detach(), model.synthesize(world.unknown, 3, generator=seeded()))
        if model.variant == "per-class":  # its rows do not depend on the query
            assert rows.requires_grad
            continue
        (gradient,) = torch.autograd.grad(rows[:, 0].sum(), query)
        assert gradient.abs().sum(dim=-1).min() > 0 or model.variant == "joint"


def test_gradients_of_the_known_embeddings(models, world: World) -> None:
    model = models["shift", "residual"]
    known = world.known.clone().requires_grad_()
    near = class_neighbours(world.unknown, world.known, 3)[0]
    rows = model.synthesize(world.unknown, 3, generator=seeded(), grad=True, known_embeddings=known)
    (gradient,) = torch.autograd.grad(rows[:, 0].sum(), known)
    assert set(gradient.abs().sum(dim=-1).nonzero()[:, 0].tolist()) == set(near.flatten().tolist())


def test_the_caller_keeps_gradients_between_chunks(models, world: World) -> None:
    for _ in models["joint", "none"].iter_synthesize(world.unknown, 2, generator=seeded(), chunk=5):
        assert torch.is_grad_enabled()


def test_dropout_is_off_and_the_mode_is_kept(models, world: World) -> None:
    model = models["joint", "none"]
    expected = model.synthesize(world.unknown, 3, generator=seeded())
    model.train()
    assert torch.equal(model.synthesize(world.unknown, 3, generator=seeded()), expected)
    assert model.training and model.attention.dropout.training
    model.eval()


def test_fixed_neighbours_and_moved_embeddings(models, world: World) -> None:
    model = models["shift", "residual"]
    near = class_neighbours(world.unknown, world.known, 3)[0]
    plain = model.synthesize(world.unknown, 4, generator=seeded())
    assert torch.equal(model.synthesize(world.unknown, 4, generator=seeded(), neighbours=near), plain)
    assert not torch.equal(model.synthesize(world.unknown, 4, generator=seeded(), neighbours=near.flip(0)), plain)
    assert torch.equal(model.synthesize(world.unknown, 4, generator=seeded(), known_embeddings=2 * world.known), plain)
    moved = model.synthesize(world.unknown, 4, generator=seeded(), known_embeddings=world.known.roll(1, 0))
    assert not torch.allclose(moved, plain)


def test_without_a_generator_torchs_own_is_used(models, world: World) -> None:
    model = models["joint", "residual"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = model.synthesize(world.unknown, 2)
        torch.manual_seed(0)
        assert torch.equal(model.synthesize(world.unknown, 2), first)
        assert not torch.equal(model.synthesize(world.unknown, 2), first)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_state_round_trip(models, world: World, case: tuple[str, str], tmp_path: Path) -> None:
    model = models[case]
    tensors, settings = model.state()
    save_file(tensors, tmp_path / "generator.safetensors")
    read = load_file(tmp_path / "generator.safetensors")
    again = ClassConditionalGenerator.from_state(read, json.loads(json.dumps(settings)))
    assert type(again) is type(model) and not again.training
    assert again.config() == model.config() and again.history == model.history
    assert again.training_settings == model.training_settings
    rows, expected = (m.synthesize(world.unknown, 5, generator=seeded(1)) for m in (again, model))
    assert torch.equal(rows, expected)
    assert again.state()[1] == settings


def test_a_state_is_a_copy(models) -> None:
    model = models["joint", "residual"]
    model.state()[0]["norm.weight"].fill_(7)
    assert (model.norm.weight != 7).all()


def test_an_unfitted_generator_round_trips_too() -> None:
    again = ClassConditionalGenerator.from_state(*JointGenerator(6, k=2).state())
    assert again.known is None and again.k == 2


def test_states_that_do_not_fit(models) -> None:
    tensors, settings = models["joint", "residual"].state()
    with pytest.raises(ValueError, match="schema None"):
        ClassConditionalGenerator.from_state(tensors, {})
    with pytest.raises(ValueError, match="variant='gan': must be one of"):
        ClassConditionalGenerator.from_state(tensors, {**settings, "variant": "gan"})
    with pytest.raises(ValueError, match="not those of a text-only generator"):
        ClassConditionalGenerator.from_state(tensors, {**settings, "variant": "text-only"})
    with pytest.raises(ValueError, match=r"lack \['known.labels'\]"):
        ClassConditionalGenerator.from_state({k: v for k, v in tensors.items() if k != "known.labels"}, settings)


def test_refusals(models, world: World) -> None:
    model = models["joint", "residual"]
    new, near = world.unknown, class_neighbours(world.unknown, world.known, 3)[0]
    for message, query, options in (
        ("n_per_class=0: must be an integer of 1 or more", new, {"n_per_class": 0}),
        ("n_per_class=2.5", new, {"n_per_class": 2.5}),
        ("chunk=0", new, {"chunk": 0}),
        ("class_embeddings is 15 wide and 16 is needed", new[:, 1:], {}),
        ("class_embeddings has shape", new[0], {}),
        ("class_embeddings: row 3 holds NaN", torch.where(torch.arange(12)[:, None] == 3, torch.nan, new), {}),
        ("known_embeddings has 39 rows; pass one for each of the 40", new, {"known_embeddings": world.known[1:]}),
        (r"indices of shape \(12, 3\) are needed", new, {"neighbours": near[:, :2]}),
        (r"indices of shape \(12, 3\) are needed", new, {"neighbours": near.float()}),
        ("between 0 and 39", new, {"neighbours": near + 40}),
    ):
        with pytest.raises(ValueError, match=message):
            model.iter_synthesize(query, **options)  # before the first chunk is asked for
    with pytest.raises(ValueError, match=r"no known classes; make it with fit_generator\(.*variant='joint'"):
        JointGenerator(D).synthesize(new)
