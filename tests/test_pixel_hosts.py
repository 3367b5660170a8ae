"""Training, evaluation, prediction and the bench for a host that reads pixels, alone and inside OGEN."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pixel_world import KNOWN, NEW, TEMPLATE, PixelShift, Prepared, pictures
from processes import BESIDE, python, two_of
from safetensors.torch import load_file

from ogenlib import Classifier, cli, load_run
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.data import BaseNewSplit, FeatureBank, ImageSet, PixelBank, base_new_split, load_dataset
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import METHODS, Batch, CoOp, Host
from ogenlib.ogen.wrapper import OGEN
from ogenlib.train.config import TrainConfig
from ogenlib.train.loop import fit

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 6, "lr": 0.05, "warmup_epochs": 0}
SMALL: dict[str, Any] = {"k": 2, "iterations": 3, "rows": 4, "per_class": 4}


@pytest.fixture(scope="module")
def bank(clip) -> PixelBank:
    return PixelBank.load(clip, pictures(), views=2, seed=1)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "pixel_shift", PixelShift)


# --- training ---------------------------------------------------------------------------------------------


def test_one_step_is_the_hand_written_one(clip) -> None:
    bank = PixelBank.load(clip, pictures())
    config = TrainConfig(epochs=1, batch_size=99, lr=0.1, optimizer="sgd", weight_decay=0.0, warmup_epochs=0)
    trained, by_hand = PixelShift(clip, KNOWN), PixelShift(clip, KNOWN)
    history = fit(trained, bank, config=config)
    pixels = torch.stack([clip.preprocess(pictures().open(i)) for i in range(len(bank))])
    z = clip.encode_image(pixels + by_hand.shift)
    loss = F.cross_entropy(clip.logit_scale * z @ by_hand.class_weights().T, bank.labels)
    loss.backward()
    assert history.column("ce") == pytest.approx([loss.item()], rel=1e-5)
    assert by_hand.shift.grad.abs().min() > 0
    torch.testing.assert_close(trained.shift, by_hand.shift - 0.1 * by_hand.shift.grad, atol=1e-6, rtol=1e-4)
    assert all(batch.features is None for batch in trained.seen)  # nobody asked for the frozen tower


def test_a_batch_says_which_images_it_holds(clip, bank) -> None:
    host = PixelShift(clip, KNOWN)
    fit(host, bank, epochs=1, batch_size=5)
    assert sorted(torch.cat([batch.rows for batch in host.seen]).tolist()) == list(range(len(bank)))
    for batch in host.seen:
        assert torch.equal(bank.labels[batch.rows], batch.labels)
        views = [bank.pixels(batch.rows, torch.full_like(batch.rows, view)) for view in range(bank.views)]
        assert all(any(torch.equal(view[i], pixels) for view in views) for i, pixels in enumerate(batch.pixels))


def test_steps_see_the_views_a_feature_bank_would_give(clip, bank) -> None:
    """A shift held at zero is the frozen tower: the same terms as its own features would give."""
    host, plain = Prepared(clip, KNOWN), CoOp(clip, KNOWN, "an icon of a")
    fit(host, bank, epochs=1, batch_size=5)
    features = bank.frozen(clip)
    assert torch.equal(host.prepared.features, features.features)  # made before the first step
    for batch in host.seen:
        torch.testing.assert_close(batch.features, clip.encode_image(batch.pixels), atol=1e-5, rtol=0)
    rows = {tuple(f.tolist()) for f in features.features.flatten(0, 1)}
    assert {tuple(f.tolist()) for batch in host.seen for f in batch.features} <= rows
    other = CoOp(clip, KNOWN, "an icon of a")
    fit(plain, features, **QUICK)
    fit(other, bank, **QUICK)  # frozen for a host on cached features
    assert torch.equal(plain.context, other.context)


def test_refusals(clip, bank) -> None:
    host = PixelShift(clip, KNOWN)
    with pytest.raises(ValueError, match=r"pixel_shift changes the image side.*PixelBank\.load\(clip, images, views=8"):
        fit(host, bank.frozen(clip))
    with pytest.raises(ValueError, match=r"PixelBank\.load"):
        evaluate.predict_logits(host, bank.frozen(clip), KNOWN)
    with pytest.raises(ValueError, match="no class 'fern'"):
        fit(PixelShift(clip, ["fern"]), bank)
    with pytest.raises(ValueError, match=r"no training images for 1 classes: \['clock'\]"):
        fit(host, bank.subset(bank.labels < 3))
    made = {**bank.fingerprint, "preprocess": {"size": 1}}
    with pytest.raises(ValueError, match="pixels were made for"):
        fit(host, replace(bank, fingerprint=made))


def test_stopped_and_continued_is_bit_identical_wherever_pixels_are_kept(clip, bank, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise Stop
        return {}

    settings = {**QUICK, "epochs": 3}
    whole, parts, again = (PixelShift(clip, KNOWN) for _ in range(3))
    fit(whole, bank, **settings)
    with pytest.raises(Stop):
        fit(parts, bank, out=tmp_path, measure=stop, **settings)
    decoded = PixelBank.load(clip, pictures(), views=2, seed=1, cache="none", workers=2)
    history = fit(again, decoded, out=tmp_path, **settings)
    assert torch.equal(whole.shift, again.shift) and [e["epoch"] for e in history.epochs] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"belongs to another run.*bank"):
        fit(PixelShift(clip, KNOWN), PixelBank.load(clip, pictures(), views=2, seed=2), out=tmp_path, **settings)


SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from pixel_world import KNOWN, PixelShift, pictures
from ogenlib.utils import distributed
from ogenlib.data import PixelBank
from ogenlib.towers import load_backbone
from ogenlib.train.loop import fit

torch.set_num_threads(1)
distributed.start("cpu")
clip = load_backbone("ogen-tiny")
host = PixelShift(clip, KNOWN)
fit(host, PixelBank.load(clip, pictures(), views=2, seed=1), epochs=2, batch_size=7, lr=0.01, optimizer="sgd")
if distributed.is_main():
    save_file({"shift": host.shift.detach().clone()}, sys.argv[1])
print(f"images={sum(len(batch.labels) for batch in host.seen)};")
distributed.barrier()
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path) -> None:
    script, ends = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for count, run in ((1, python), (2, two_of)):
        end = tmp_path / f"{count}.safetensors"
        seen = [int(found) for found in re.findall(r"images=(\d+)", str(run(str(script), str(end), **BESIDE)))]
        assert sum(seen) == 24 and len(seen) == count  # each process decodes its share alone
        ends.append(load_file(end)["shift"])
    assert ends[0].abs().min() > 1e-4
    torch.testing.assert_close(ends[1], ends[0], atol=1e-6, rtol=0)


# --- OGEN around it ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["almt", "mean", "ema", None])
def test_ogen_trains_it_and_goes_on(clip, bank, tmp_path, teacher: str | None) -> None:
    class Stop(Exception):
        pass

    def stop(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 2:
            raise Stop
        return {}

    def model() -> OGEN:
        weights = {"zero_shot_kl": 0.5, "synthesized_kl": 0.5, "teacher_weight": 0.5 if teacher else 0.0}
        return OGEN(PixelShift(clip, KNOWN), unknown=NEW, teacher=teacher, **SMALL, **weights)

    settings = {**QUICK, "epochs": 3}
    whole, parts, again = model(), model(), model()
    history = fit(whole, bank, **settings)
    with pytest.raises(Stop):
        fit(parts, bank, out=tmp_path, measure=stop, **settings)
    fit(again, bank, out=tmp_path, **settings)
    assert torch.equal(whole.host.shift, again.host.shift) and whole.host.shift.abs().max() > 0
    assert {"ce", "zero_shot_kl_real", "zero_shot_kl_synthesized"} <= set(history.epochs[-1])
    # what is trained moves the images alone: only the images can make a difference between student and teacher
    assert history.epochs[-1].get("teacher", 0.0) > 0 or teacher is None
    bare = PixelShift(clip, KNOWN)
    fit(bare, bank, **settings)
    assert not torch.equal(bare.shift, whole.host.shift)


def test_ogen_distils_the_frozen_tower_and_the_teachers_own_images(clip, bank) -> None:
    off = {"generator": None, "zero_shot_share": 0.0, "synthesized_kl": 0.0, "synthesized_ce": 0.0}
    off |= {"synthesized_ce_within": 0.0, "pseudo_unknown": 0.0, "host_weight": 1.0, "temperature": 1.0}
    model = OGEN(
        PixelShift(clip, KNOWN), teacher="mean", teacher_weight=2.0, teacher_loss="kl", zero_shot_kl=3.0, **off
    )
    model.prepare(bank.frozen(clip), 4, 1)
    with torch.no_grad():
        model.host.shift.fill_(0.3)
    model.on_epoch_end(1, 4)
    held = model.teacher.state()["shift"]
    with torch.no_grad():
        model.host.shift.fill_(-0.5)
    pixels = bank.view(torch.arange(6), torch.Generator().manual_seed(0))
    batch = Batch(bank.labels[:6], pixels=pixels, generator=torch.Generator().manual_seed(0))
    terms = model.losses(batch)

    def logits(shift: Any) -> torch.Tensor:
        return clip.logit_scale * clip.encode_image(pixels + shift) @ model.host.class_weights().T

    def kl(target: torch.Tensor) -> float:
        log_p = logits(-0.5).log_softmax(1)
        return F.kl_div(log_p, target.log_softmax(1), log_target=True, reduction="batchmean").item()

    assert terms["zero_shot_kl_real"].item() == pytest.approx(3 * kl(logits(0.0)), rel=1e-4)
    assert terms["teacher"].item() == pytest.approx(2 * kl(logits(held)), rel=1e-4)
    assert terms["teacher"].item() > 1e-3 and (model.host.shift == -0.5).all()


# --- testing and using it ---------------------------------------------------------------------------------


def shifted(clip, value: float = 0.7) -> PixelShift:
    host = PixelShift(clip, KNOWN)
    with torch.no_grad():
        host.shift.fill_(value)
    return host


def test_images_and_their_bank_score_the_same_with_its_own_image_side(clip) -> None:
    images = pictures(2, (*KNOWN, *NEW))
    split = BaseNewSplit(KNOWN, NEW)
    host, names = shifted(clip), (*KNOWN, *NEW)
    pixels = torch.stack([clip.preprocess(images.open(i)) for i in range(len(images))])
    with torch.no_grad():
        expected = clip.logit_scale * clip.encode_image(pixels + 0.7) @ host.class_weights(names).T
        frozen = clip.logit_scale * clip.encode_image(pixels) @ host.class_weights(names).T
    for data in (images, PixelBank.load(clip, images), PixelBank.load(clip, images, cache="none")):
        torch.testing.assert_close(
            evaluate.predict_logits(host, data, names, batch_size=5), expected, atol=1e-3, rtol=0
        )
        assert evaluate.base_to_new(host, data, split).predicted.tolist() == expected.argmax(1).tolist()
    assert (frozen - expected).abs().max() > 0.5
    plain = CoOp(clip, names, "an icon of a")
    by_pixels = evaluate.predict_logits(plain, PixelBank.load(clip, images), names)
    torch.testing.assert_close(by_pixels, evaluate.predict_logits(plain, images, names), atol=1e-3, rtol=0)


@pytest.mark.parametrize("ogen", [False, True])
def test_a_saved_run_predicts_with_its_own_image_side(clip, registered, tmp_path, ogen: bool) -> None:
    host: Host = shifted(clip)
    if ogen:
        host = OGEN(host, unknown=NEW, generator=None, synthesized_kl=0.0, zero_shot_share=0.0)
    host.save(tmp_path / "run")
    classifier = Classifier.load(tmp_path / "run", clip=clip)
    assert not classifier.host.uses_cached_features
    images = [pictures().open(i) for i in (0, 5)]
    pixels = torch.stack([clip.preprocess(image) for image in images])
    w = shifted(clip).class_weights()
    for shift, agrees in ((0.7, True), (0.0, False)):
        with torch.no_grad():
            chances = (clip.logit_scale * clip.encode_image(pixels + shift) @ w.T).softmax(1)
        top = [p.probabilities[0] for p in classifier.predict(images)]
        assert (top == pytest.approx(chances.amax(1).tolist(), abs=1e-4)) == agrees


def write(images: ImageSet, folder: Path) -> Path:
    for i in range(len(images)):
        file = folder / images.classnames[images[i].label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.open(i).save(file)
    return folder


def test_train_eval_and_predict_from_the_command_line(registered, tmp_path, capsys) -> None:
    folder = write(pictures(3), tmp_path / "images")
    run, common = tmp_path / "run", ["--dataset", str(folder), "--quiet"]
    options = ["--host", "pixel_shift", "--epochs", "1", "--shots", "2", "--views", "2", "--lr", "0.05"]
    assert cli.main(["train", *options, *common, "--out", str(run)]) == 0
    (folder / "bird" / "broken.png").write_bytes(b"no picture")
    assert load_file(run / "host.safetensors")["shift"].abs().max() > 0
    assert cli.main(["eval", str(run), *common, "--skip-bad", "--split", "train", "--out", str(tmp_path)]) == 0
    assert cli.main(["predict", str(run), str(folder / "boat" / "3.png"), "--out", str(tmp_path)]) == 0
    assert "boat" in capsys.readouterr().out


@pytest.mark.slow
def test_the_bench_runs_it_beside_a_host_on_features(registered, clip, tmp_path, monkeypatch) -> None:
    decoded: list[int] = []
    load = PixelBank.load.__func__

    def counted(cls: Any, clip: Any, images: Any, *rest: Any, **options: Any) -> PixelBank:
        decoded.append(len(images))
        return load(cls, clip, images, *rest, **options)

    monkeypatch.setattr(PixelBank, "load", classmethod(counted))
    folder = str(write(pictures(5, (*KNOWN, *NEW)), tmp_path / "images"))
    settings = {"warmup_epochs": 0, "lr": 0.02}
    config = BenchConfig(
        dataset=folder,
        hosts=("coop", "pixel_shift"),
        epochs=1,
        views=2,
        ogen_settings=SMALL,
        seeds=(1,),
        settings=settings,
    )
    document = run_bench(config, tmp_path)
    assert len(decoded) == 2  # the test images and the seed's training images, once for all runs
    rows = {(r["host"], r["ogen"]): r for r in document["rows"] if not r.get("control")}
    assert set(rows) == {("zero_shot", False), *((h, o) for h in ("coop", "pixel_shift") for o in (False, True))}
    for name in ("pixel_shift", "pixel_shift+ogen"):
        model = load_run(tmp_path / "runs" / f"{name}-seed1", clip)
        test = load_dataset(folder).test
        split = base_new_split(test.classnames)
        found = evaluate.base_to_new(model, test, split).scores  # from the images, not from any bank
        row = rows["pixel_shift", name.endswith("ogen")]
        assert {k: row[k] for k in found} == pytest.approx(found, abs=1e-2, nan_ok=True)
        assert load_file(tmp_path / "runs" / f"{name}-seed1" / "host.safetensors")["shift"].abs().max() > 1e-3
    bank = next((tmp_path / "banks").glob("*.safetensors"))
    assert len(FeatureBank.load(bank)) == decoded[0]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    run_bench(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before


def test_the_template_is_the_datasets(clip) -> None:
    assert PixelShift(clip, KNOWN).reference_templates() == (TEMPLATE,)
