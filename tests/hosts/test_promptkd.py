"""PromptKD: the teacher's weights, the projector, the loss, unlabelled images, and runs without their teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pixel_world import KNOWN, NEW, pictures
from prompted_world import NAMES, OTHERS, batch, draw, made, make_clip, moved, pixels

from ogenlib.data import FeatureBank, PixelBank
from ogenlib.hosts import Batch, CoCoOp, CoOp, PromptKD, PromptSRC, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import Backbone, load_backbone
from ogenlib.train.loop import fit


@pytest.fixture(scope="module")
def world() -> Backbone:
    return make_clip()


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("ogen-tiny")


def wide_teacher() -> PromptSRC:
    """On another model, of embedding 10 as all of them, with other weights and deeper."""
    return moved(PromptSRC(make_clip({"layers": 5}), NAMES))


def test_class_weights_are_the_teachers_for_any_names(world: Backbone) -> None:
    teacher = moved(CoOp(world, NAMES))
    host = PromptKD(world, NAMES, teacher, other_names=["fox"])
    assert host.teacher_weights.shape == (4, 10)
    for names in (NAMES, ("fox", "dog"), ("bus", "fox")):
        torch.testing.assert_close(host.class_weights(names), teacher.class_weights(names))
    assert all(p.requires_grad for p in teacher.trainable().values())  # the teacher is used, not changed
    assert set(host.trainable()) == {"visual", "down", "gain", "shift", "up", "up_bias"}


def test_the_projector_by_hand(world: Backbone) -> None:
    host = made("promptkd", world, n_visual=3, depth=2)
    raw = world.image.encode(pixels(world), prompts=host.visual[0], deep=host.visual[1:])
    net = torch.nn.Sequential(
        torch.nn.Conv2d(10, 10, 1, bias=False), torch.nn.BatchNorm2d(10), torch.nn.ReLU(), torch.nn.Conv2d(10, 10, 1)
    )
    with torch.no_grad():
        net[0].weight.copy_(host.down[..., None, None])
        net[1].weight.copy_(host.gain)
        net[1].bias.copy_(host.shift)
        net[3].weight.copy_(host.up[..., None, None])
        net[3].bias.copy_(host.up_bias)
    for mode in (True, False):
        net.train(mode)
        host.train(mode)
        expected = F.normalize(net(raw[..., None, None])[..., 0, 0], dim=-1)
        torch.testing.assert_close(host.image_features(batch(world)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(host.mean, net[1].running_mean)
    torch.testing.assert_close(host.variance, net[1].running_var)
    host.train()
    before = host.mean.clone()
    one = host.image_features(Batch(torch.zeros(1), pixels=pixels(world, 1)))  # batch norm has no statistics of one
    assert one.isfinite().all() and torch.equal(host.mean, before)


def test_the_loss_by_hand_and_without_labels(world: Backbone) -> None:
    teacher = wide_teacher()
    host = moved(PromptKD(world, NAMES, teacher, other_names=OTHERS, weight=10.0, temperature=2.0))
    host.eval()
    w, scale, given = teacher.class_weights((*NAMES, *OTHERS)), world.logit_scale, batch(world)
    p = (teacher.clip.logit_scale * teacher.image_features(given) @ w.T / 2).softmax(1)
    q = (scale * host.image_features(given) @ w.T / 2).softmax(1)
    expected = 10 * 4 * (p * (p.log() - q.log())).sum() / (5 * 5)
    terms = host.losses(given)
    assert set(terms) == {"kd"} and terms["kd"].item() == pytest.approx(expected.item(), rel=1e-4)
    other = Batch(1 - given.labels.clamp(max=1), pixels=given.pixels)
    assert host.losses(other)["kd"].item() == terms["kd"].item()
    terms["kd"].backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_cached_features_spare_the_teachers_pass(world: Backbone) -> None:
    host = made("promptkd", world, templates="a {}.").eval()
    given = batch(world)
    z = world.encode_image(given.pixels)
    with_features = Batch(given.labels, features=z, pixels=given.pixels)
    assert host.losses(with_features)["kd"].item() == pytest.approx(host.losses(given)["kd"].item(), rel=1e-5)
    wrong = Batch(given.labels, features=F.normalize(draw(5, 10, seed=9), dim=-1), pixels=given.pixels)
    assert host.losses(wrong)["kd"].item() != pytest.approx(host.losses(given)["kd"].item(), rel=1e-3)


def test_fit_on_unlabelled_images_of_new_names(tiny: Backbone) -> None:
    bank = PixelBank.load(tiny, pictures(2), views=2)
    free = PixelBank.load(tiny, pictures(3, NEW), views=2)
    host = PromptKD(tiny, KNOWN, other_names=NEW, unlabelled=free, templates="an icon of a {}.", n_visual=2, depth=2)
    assert host.config()["taught_by"]["unlabelled"]["images"] == 6
    losses = fit(host, bank, epochs=4, seed=1).column("kd")
    assert losses[-1] < losses[0]
    assert host._seen is not None and host._seen.shape == (6, 2, 128)
    drawn, rows = host._drawn(Batch(torch.zeros(3), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(rows, tiny.encode_image(drawn.pixels), atol=1e-5, rtol=0)
    alone = PromptKD(tiny, KNOWN, other_names=NEW, templates="an icon of a {}.", n_visual=2, depth=2)
    assert fit(alone, bank, epochs=4, seed=1).column("kd") != losses and alone.taught_by["unlabelled"] is None


def test_a_killed_training_goes_on_to_the_same_end(tiny: Backbone, tmp_path: Path) -> None:
    bank = PixelBank.load(tiny, pictures(2), views=2)
    runs = []
    for folder, stops in ((tmp_path / "a", [None]), (tmp_path / "b", [1, None])):
        for stop in stops:
            host = PromptKD(tiny, KNOWN, n_visual=1, depth=1)

            def measure(_: object, epoch: int, stop: int | None = stop) -> dict[str, float]:
                if epoch == 2 and stop:
                    raise KeyboardInterrupt
                return {}

            try:
                fit(host, bank, epochs=3, seed=1, out=folder, measure=measure)
            except KeyboardInterrupt:
                continue
            runs.append(host.state_dict())
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0]) and len(runs) == 2


def test_a_saved_run_opens_without_its_teacher(world: Backbone, tmp_path: Path) -> None:
    teacher = moved(CoOp(world, NAMES))
    teacher.save(tmp_path / "teacher")
    host = moved(PromptKD(world, NAMES, tmp_path / "teacher", other_names=["fox"]))
    host.image_features(batch(world))  # moves the running statistics
    host.save(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["taught_by"]["method"] == "coop"
    here = load_run(tmp_path / "run", clip=world)
    torch.testing.assert_close(here.class_weights(["bus"]), teacher.class_weights(["bus"]))  # asks the saved teacher
    shutil.rmtree(tmp_path / "teacher")
    again = load_run(tmp_path / "run", clip=world)
    assert isinstance(again, PromptKD)
    torch.testing.assert_close(again.class_weights(["fox", "dog"]), teacher.class_weights(["fox", "dog"]))
    assert torch.equal(again.image_features(batch(world)), host.eval().image_features(batch(world)))
    with pytest.raises(ValueError, match=r"needs the teacher \(coop\), which is no longer in .*host.ask"):
        again.class_weights(["bus"])
    again.ask(teacher)
    torch.testing.assert_close(again.class_weights(["bus"]), teacher.class_weights(["bus"]))
    PromptKD(world, NAMES, teacher).save(tmp_path / "other")
    with pytest.raises(ValueError, match="was never saved"):
        load_run(tmp_path / "other", clip=world).class_weights(["bus"])


def test_a_run_with_the_zero_shot_teacher_knows_every_name(world: Backbone, tmp_path: Path) -> None:
    made("promptkd", world, templates="a {}.").save(tmp_path / "run")
    again = load_run(tmp_path / "run", clip=world)
    assert torch.equal(again.class_weights(["bus"]), ZeroShot(world, ["bus"], "a {}.").class_weights())


def test_what_cannot_teach_is_refused(world: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cocoop depend on the image"):
        PromptKD(world, NAMES, CoCoOp(world, NAMES))
    with pytest.raises(ValueError, match="teacher's backbone wants pixels as"):
        PromptKD(world, NAMES, CoOp(make_clip({"image_size": 24}), NAMES))
    with pytest.raises(FileNotFoundError, match="not a saved run"):
        PromptKD(world, NAMES, tmp_path)
    for name in ("weight", "temperature"):
        with pytest.raises(ValueError, match=f"{name}=0: must be a positive number"):
            PromptKD(world, NAMES, **{name: 0})
    with pytest.raises(ValueError, match="needs pixels"):
        PromptKD(world, NAMES).image_features(Batch(torch.zeros(1), features=draw(1, 10)))


def test_released_settings(world: Backbone) -> None:
    host = PromptKD.paper(world, NAMES, CoOp(world, NAMES))
    assert host.train_settings() == {"lr": 5e-3, "optimizer": "sgd", "epochs": 20, "batch_size": 8}
    assert host.visual.shape == (4, 4, 24) and host.weight == 1000  # of 9 layers: the tower has four
    bank = FeatureBank.from_features(draw(3, 10), torch.arange(3), NAMES, world)
    host.prepare(bank, 1, 1)
    assert host._seen is None
