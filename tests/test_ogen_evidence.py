"""Evidence in class weights: what it adds to logits, whom it helps, and that it is saved with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import ogenlib as og
from ogenlib.data import FeatureBank, ImageSet
from ogenlib.detect.of_host import class_rows
from ogenlib.evaluate import predict_logits
from ogenlib.generators import ausuc
from ogenlib.hosts import Host, build
from ogenlib.ogen.evidence import constant_direction, fit_evidence
from ogenlib.ogen.evidence_file import load_evidence, save_evidence
from ogenlib.runs import load_run
from ogenlib.towers import Backbone, EmbeddingTable
from ogenlib.utils.documents import DamagedFile

DIM, KNOWN, UNKNOWN = 24, 16, 8
NAMES = [f"thing {i}" for i in range(KNOWN + UNKNOWN)]
QUICK = {"preset": "zero-shot-kl", "zero_shot_share": 1.0}


def features(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Name embeddings, images about means that a linear map makes of them and a common direction, and labels."""
    draws = torch.Generator().manual_seed(7)
    text = F.normalize(torch.randn(DIM, generator=draws) + torch.randn(len(NAMES), DIM, generator=draws), dim=-1)
    means = 3 * torch.randn(DIM, generator=draws) + text @ torch.randn(DIM, DIM, generator=draws)
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(NAMES)).repeat_interleave(count)
    images = means[labels][:, None] + 0.4 * torch.randn(len(labels), 2, DIM, generator=draws)
    return text, F.normalize(images, dim=-1), labels


@pytest.fixture(scope="module")
def world() -> tuple[EmbeddingTable, FeatureBank, FeatureBank]:
    """A table of names, a bank of images of the known ones, and a bank of other images of all."""
    text, images, labels = features(6, seed=1)
    table = EmbeddingTable(NAMES, text)
    seen = labels < KNOWN
    train = FeatureBank.from_features(images[seen][:, 0], labels[seen], NAMES[:KNOWN], table)
    _, others, labels = features(10, seed=2)
    return table, train, FeatureBank.from_features(others[:, 0], labels, NAMES, table)


def trained(world: Any, share: float, host: str = "taskres") -> og.OGEN:
    table, train, _ = world
    model = og.OGEN(build(host, table, NAMES[:KNOWN], templates="{}"), unknown=NAMES[KNOWN:], evidence=share, **QUICK)
    og.fit(model, train, epochs=1, seed=1)
    return model


def test_logits_are_the_hosts_with_the_discriminant_added(world: Any) -> None:
    model, (table, _, test) = trained(world, 0.5), world
    plain = trained(world, 0.0)
    assert plain.evidence is None and model.evidence is not None and model.evidence.chosen.weight > 0
    z = F.normalize(test.features[:, 0].float(), dim=-1)
    added = model.evidence.temperature * predict_logits(model, test, NAMES) - predict_logits(plain, test, NAMES)
    found, chosen = model.evidence.densities, model.evidence.chosen
    means = torch.cat([found.means, found.predict(table.encode_text(NAMES[KNOWN:]))])
    expected = 0.5 * chosen.weight * chosen.scale * found.discriminant(means)(z)
    centred = [values - values.mean(dim=1, keepdim=True) for values in (added, expected)]
    # The bias stands along a direction on which features nearly agree, so it is nearly the same for all of them.
    assert F.cosine_similarity(*[c.flatten()[None] for c in centred]) > 0.995
    assert 0.95 < centred[0].norm() / centred[1].norm() < 1.05


def test_it_helps_where_images_lie_otherwise_than_names_say(world: Any) -> None:
    test = world[2]
    areas = [ausuc(predict_logits(trained(world, share), test, NAMES), test.labels, KNOWN) for share in (0.0, 0.5)]
    assert areas[1] > areas[0] + 5


def test_training_does_not_see_it_and_directions_are_without(world: Any) -> None:
    model, plain = trained(world, 0.5), trained(world, 0.0)
    for (name, a), (_, b) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(model.text_weights(NAMES), plain.class_weights(NAMES))
    assert not torch.allclose(model.class_weights(NAMES), plain.class_weights(NAMES))
    assert torch.equal(class_rows(model, NAMES), class_rows(plain, NAMES))
    torch.testing.assert_close(class_rows(model, NAMES).norm(dim=1), torch.ones(len(NAMES)))


def test_names_in_any_order_and_alone_have_the_same_weights(world: Any) -> None:
    model = trained(world, 0.5)
    every = model.class_weights(NAMES)
    order = [3, 20, 0, 17]
    torch.testing.assert_close(model.class_weights([NAMES[i] for i in order]), every[order])
    torch.testing.assert_close(model.class_weights([NAMES[21]]), every[[21]])


def test_a_run_keeps_it(world: Any, tmp_path: Path) -> None:
    model, table = trained(world, 0.5), world[0]
    model.save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=table)
    assert torch.equal(again.class_weights(NAMES), model.class_weights(NAMES))
    trained(world, 0.0).save(tmp_path / "run")
    assert not (tmp_path / "run" / "evidence.safetensors").exists()
    assert torch.equal(load_run(tmp_path / "run", clip=table).class_weights(NAMES), model.text_weights(NAMES))


@pytest.mark.parametrize("change", ["names", "means", "missing", "schema"])
def test_files_that_do_not_fit_are_refused(change: str, world: Any, tmp_path: Path) -> None:
    model, table = trained(world, 0.5), world[0]
    assert model.evidence is not None
    path = tmp_path / "evidence.safetensors"
    save_evidence(model.evidence, path)
    assert load_evidence(path).names == model.evidence.names
    evidence = model.evidence
    if change == "names":
        evidence = replace(evidence, names=evidence.names[:-1])
    if change == "means":
        evidence = replace(evidence, densities=replace(evidence.densities, means=evidence.densities.means[:, :-1]))
    save_evidence(evidence, path)
    if change == "missing":
        model.save(tmp_path / "run")
        (tmp_path / "run" / "evidence.safetensors").unlink()
        with pytest.raises(DamagedFile, match=r"evidence\.safetensors is missing"):
            load_run(tmp_path / "run", clip=table)
    elif change == "schema":
        with pytest.raises(DamagedFile, match="not of evidence"):
            load_evidence(model.save(tmp_path / "run") / "host.safetensors")
    else:
        with pytest.raises(DamagedFile, match="does not hold whole evidence"):
            load_evidence(path)


@pytest.mark.parametrize("temperature", [0.0, -1.5])
def test_a_file_with_an_impossible_temperature_is_refused(temperature: float, world: Any, tmp_path: Path) -> None:
    evidence = trained(world, 0.5).evidence
    assert evidence is not None
    save_evidence(replace(evidence, temperature=temperature), tmp_path / "evidence.safetensors")
    with pytest.raises(DamagedFile, match=f"has a temperature of {temperature}"):
        load_evidence(tmp_path / "evidence.safetensors")


def test_of_other_names_it_is_refused(world: Any) -> None:
    model, table = trained(world, 0.5), world[0]
    host: Host = build("taskres", table, NAMES[: KNOWN - 1], templates="{}")
    with pytest.raises(ValueError, match="evidence is of 16 names"):
        og.OGEN.from_card(host, model.card(), evidence=model.evidence)


def test_none_where_it_would_not_help() -> None:
    draws = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(6, DIM, generator=draws), dim=-1)
    labels = torch.arange(6).repeat_interleave(4)
    images = F.normalize(text[labels][:, None] + 0.02 * torch.randn(24, 2, DIM, generator=draws), dim=-1)
    names = tuple(NAMES[:6])
    assert fit_evidence(images, labels, names, text, 100.0, (0.5, 0.0), seed=1) is None  # zero-shot is perfect
    assert fit_evidence(images[:8], labels[:8], names[:2], text[:2], 100.0, (0.5, 0.0), seed=1) is None


def test_an_image_is_left_out_of_its_own_class_and_a_class_of_all() -> None:
    text, images, labels = features(4, seed=1)
    names = tuple(NAMES[:KNOWN])
    seen = labels < KNOWN
    images, labels, text = images[seen], labels[seen], text[:KNOWN]
    found = fit_evidence(images, labels, names, text, 100.0, (0.5, 0.0), seed=1)
    assert found is not None
    corrections, unknown = found.left_out(images, labels)
    z, densities, scale = images[:, 0], found.densities, found.factor / found.temperature
    whole = densities.discriminant(densities.means)(z)
    for i in (0, 5, 63):
        means, own = densities.means.clone(), labels[i]
        others = (labels == own) & (torch.arange(len(labels)) != i)
        means[own] = images[others].flatten(0, 1).mean(dim=0)
        expected = scale * (densities.discriminant(means)(z[[i]]) - whole[[i]])[0]
        torch.testing.assert_close(corrections[i], expected, rtol=1e-3, atol=1e-4)
    without = densities.discriminant(densities.means - densities.errors())(z)
    gaps = scale * (without - without.mean(dim=1, keepdim=True))
    torch.testing.assert_close(unknown - unknown.mean(dim=1, keepdim=True), gaps, rtol=1e-3, atol=1e-4)
    # It takes from the image's own class, and with every class known by its name alone it says less of any.
    assert (corrections.sum(dim=1) <= 0).float().mean() > 0.9
    assert unknown.std(dim=1).mean() < scale * whole.std(dim=1).mean()


@pytest.mark.parametrize("shots", [1, 2])
def test_none_where_images_say_nothing_of_their_spread(shots: int) -> None:
    text, images, labels = features(shots, seed=1)
    assert fit_evidence(images[:, :1], labels, tuple(NAMES), text, 100.0, (0.5, 0.0), seed=1) is None


def test_zero_shot_weights_beside_it(world: Any) -> None:
    model, table = trained(world, 0.5), world[0]
    assert model.evidence is not None
    zero_shot, plain = table.encode_text(NAMES), model.text_weights(NAMES)
    heat = model.evidence.temperature
    mixed = replace(model.evidence, zero_shot=0.5).added(plain, NAMES, zero_shot)
    added = heat * replace(model.evidence, zero_shot=0.0).added(plain, NAMES, zero_shot) - plain
    torch.testing.assert_close(heat * mixed, 0.5 * plain + 0.5 * zero_shot + added)
    wide = replace(model.evidence, zero_shot=0.5).added(torch.cat([plain, plain], dim=1), NAMES, zero_shot)
    torch.testing.assert_close(heat * wide[:, :DIM], 0.5 * plain)  # the frozen tower's features come second
    torch.testing.assert_close(wide[:, DIM:], mixed)


def test_the_constant_direction() -> None:
    rows = features(5, seed=3)[1].flatten(0, 1)
    products = rows @ constant_direction(rows)
    assert products.mean() == pytest.approx(1, abs=1e-4)
    mean = rows.mean(dim=0)
    assert products.std() < (rows @ mean / mean.square().sum()).std()


def test_a_share_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="evidence=-1"):
        og.OGENConfig(evidence=-1)


# --- around hosts of a real model -------------------------------------------------------------------------


def drawings(clip: Backbone, host: str) -> tuple[og.OGEN, ImageSet]:
    """A host with OGEN and evidence on drawings of twelve categories, and drawings of theirs to look at."""
    data = og.load_dataset("emoji-categories", test_domains=["noto"])
    known, new = list(data.classnames[:12]), list(data.classnames[30:34])
    train = og.few_shot(data.train, shots=6, seed=1).of_classes(known)
    inner = build(host, clip, known)
    model = og.OGEN(inner, unknown=new, evidence=0.5, generator=None, teacher=None)
    bank = FeatureBank.extract(clip, train) if inner.uses_cached_features else og.PixelBank.load(clip, train)
    og.fit(model, bank, epochs=1, seed=1)
    assert model.evidence is not None
    return model, data.test.of_classes(known).subset(range(6))


@pytest.mark.slow
def test_an_exported_head_has_it(clip: Backbone, tmp_path: Path) -> None:
    model, images = drawings(clip, "coop")
    names = [*model.names[:3], *model.others[:2]]
    head = og.to_linear_head(model, names)
    z = FeatureBank.extract(clip, images).features[:, 0].float()
    torch.testing.assert_close(head(z), predict_logits(model, images, names), atol=1e-3, rtol=1e-4)
    folder = og.export_head(model, tmp_path / "head", names, tower=False)
    assert torch.equal(load_file(folder / "head.safetensors")["weight"], model.class_weights(names))


@pytest.mark.slow
def test_a_host_that_moves_the_image_side_has_it_on_the_frozen_features(clip: Backbone, tmp_path: Path) -> None:
    model, images = drawings(clip, "full_ft")
    names = [*model.names, *model.others]
    assert model.scoring.two_towers and model.evidence is not None
    added = model.evidence.temperature * model.class_weights(names) - model.text_weights(names)
    half = clip.embed_dim
    torch.testing.assert_close(added[:, :half], torch.zeros_like(added[:, :half]))
    assert added[:, half:].any(dim=1).all()
    model.save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=clip)
    assert torch.equal(predict_logits(again, images, names), predict_logits(model, images, names))
    with pytest.raises(ValueError, match="frozen image tower"):
        og.export_head(model, tmp_path / "head")


@pytest.mark.parametrize("host", ["tip_adapter_f", "clip_adapter"])
def test_a_host_with_logits_of_its_own_keeps_them_and_has_it_beside(host: str, world: Any, tmp_path: Path) -> None:
    table, train, test = world
    model = og.OGEN(build(host, table, NAMES[:KNOWN], templates="{}"), unknown=NAMES[KNOWN:], evidence=0.5, **QUICK)
    og.fit(model, train, epochs=1, seed=1)
    assert model.own_logits and model.evidence is not None
    z, scale = F.normalize(test.features[:, 0].float(), dim=-1), float(table.logit_scale)
    own = model.host.logits(z, model.text_weights(NAMES))
    added = scale * z @ model.evidence.vectors(NAMES, table.encode_text(NAMES)).T
    heat = model.evidence.temperature
    torch.testing.assert_close(heat * predict_logits(model, test, NAMES), own + added, rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "run")
    assert torch.equal(
        predict_logits(load_run(tmp_path / "run", clip=table), test, NAMES), predict_logits(model, test, NAMES)
    )
    mixed = replace(model.evidence, zero_shot=0.5)
    object.__setattr__(model, "evidence", mixed)
    zero_shot = scale * z @ table.encode_text(NAMES).T
    expected = 0.5 * own + 0.5 * zero_shot + added
    torch.testing.assert_close(heat * predict_logits(model, test, NAMES), expected, rtol=1e-4, atol=1e-4)


def test_logits_spread_as_the_hosts_do(world: Any) -> None:
    model, test = trained(world, 0.5), world[2]
    assert model.evidence is not None and model.evidence.temperature == 1 + 0.5 * model.evidence.chosen.weight
    with_it, plain = (predict_logits(one, test, NAMES).std(dim=1).mean() for one in (model, trained(world, 0.0)))
    assert 0.5 < with_it / plain < 1.5
