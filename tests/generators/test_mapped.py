"""The generator without training: against the map it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ogenlib.generators import class_cosine, class_neighbours, fit_generator, fit_mean_map
from ogenlib.generators.mean_map import left_out_errors
from ogenlib.ogen.generator_file import load_generator, save_generator
from tests.generators.generator_world import World, make_world, seeded


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def mapped(world: World, **settings):  # type: ignore[no-untyped-def]
    return fit_generator(world.features, world.labels, world.known, "mapped", **settings)


def test_unknown_classes_lie_where_the_map_puts_them(world: World) -> None:
    model = mapped(world, spread="none")
    known = model.require_known()
    expected = F.normalize(fit_mean_map(known.means, known.embeddings)(world.unknown), dim=-1)
    torch.testing.assert_close(model.synthesize(world.unknown, 1), expected)


def test_a_known_class_is_predicted_without_its_images_unless_it_is_its_own_neighbour(world: World) -> None:
    model = mapped(world, spread="none")
    known = model.require_known()
    fitted = fit_mean_map(known.means, known.embeddings)
    own = class_neighbours(known.embeddings, known.embeddings, model.k)[0]
    without = class_neighbours(known.embeddings, known.embeddings, model.k, exclude_self=True)[0]
    torch.testing.assert_close(
        model.synthesize(known.embeddings, 1, neighbours=own), F.normalize(fitted(known.embeddings), dim=-1)
    )
    left_out = known.means - left_out_errors(fitted, known.means)
    torch.testing.assert_close(model.synthesize(known.embeddings, 1, neighbours=without), F.normalize(left_out, dim=-1))


def test_its_means_are_nearer_to_the_real_ones_than_the_trained_generators_are(world: World) -> None:
    cosines = {}
    labels = torch.arange(len(world.unknown)).repeat_interleave(16)
    real = world.unknown_features.flatten(0, 1)
    truth = torch.arange(len(world.unknown)).repeat_interleave(world.unknown_features.shape[1])
    for variant in ("mapped", "text-only", "joint"):
        model = fit_generator(world.features, world.labels, world.known, variant, iterations=100, seed=1)
        rows = model.synthesize(world.unknown, 16, generator=seeded())
        cosines[variant] = class_cosine(rows, labels, real, truth, centred=True)
    assert cosines["mapped"] > max(cosines["text-only"], cosines["joint"])


def test_nothing_of_it_is_saved_but_the_known_classes(world: World, tmp_path: Path) -> None:
    model = mapped(world)
    assert not list(model.parameters()) and model.history == []
    save_generator(model, tmp_path / "g.safetensors")
    loaded = load_generator(tmp_path / "g.safetensors")
    assert torch.equal(
        loaded.synthesize(world.unknown, 3, generator=seeded()), model.synthesize(world.unknown, 3, generator=seeded())
    )
