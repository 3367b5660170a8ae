"""Saved runs: what is written, what is refused, and predicting with them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from use_world import Conditional

from ogenlib import Classifier, load_run
from ogenlib.data import load_dataset
from ogenlib.hosts import CoOp
from ogenlib.runs.saved import read_run
from ogenlib.utils.documents import write_document

NAMES = ["dog", "red apple", "train"]


@pytest.fixture
def run(clip, tmp_path):
    return CoOp(clip, NAMES, "an icon of a").save(tmp_path / "run", {"note": 1})


def test_a_run_is_two_plain_files(run) -> None:
    assert sorted(p.name for p in run.iterdir()) == ["host.safetensors", "run.json"]
    record = json.loads((run / "run.json").read_text())
    assert record["method"] == "coop" and record["names"] == NAMES and record["extra"] == {"note": 1}
    assert record["backbone"]["quick_gelu"] is False and record["backbone"]["name"] == "ogen-tiny"
    assert (run / "host.safetensors").stat().st_size < 10_000


def test_loading_needs_nothing_but_the_folder(run, clip) -> None:
    host = load_run(run)
    assert host.clip is not clip and host.clip.weights_hash == clip.weights_hash
    torch.testing.assert_close(host.class_weights(), CoOp(clip, NAMES, "an icon of a").class_weights())


def test_another_backbone_is_refused(run, clip) -> None:
    record = json.loads((run / "run.json").read_text())
    record["backbone"]["weights_hash"] = "0" * 16
    record["backbone"]["quick_gelu"] = True
    write_document(run / "run.json", record)
    with pytest.raises(ValueError, match=r"weights_hash.*quick_gelu.*load_backbone\('ogen-tiny'"):
        load_run(run, clip=clip)


def test_damaged_runs_are_named(run, clip, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a saved run"):
        read_run(tmp_path / "nowhere")
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    (cut / "host.safetensors").write_bytes((run / "host.safetensors").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"host\.safetensors cannot be read as a run's tensors"):
        load_run(cut, clip=clip)
    (cut / "run.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_run(cut, clip=clip)
    (cut / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json .*saved run's card: .*JSON list"):
        load_run(cut, clip=clip)
    write_document(cut / "run.json", {**read_run(run), "format": "ogenlib.run/9"})
    with pytest.raises(ValueError, match="not of format"):
        load_run(cut, clip=clip)


def test_predict_ranks_names_for_paths_and_pictures(run, clip, tmp_path) -> None:
    images = load_dataset("emoji-categories").test
    pictures = [images.open(0), images.open(700)]
    pictures[0].save(tmp_path / "a.png")
    classifier = Classifier.load(run, clip=clip)
    both = classifier.predict([tmp_path / "a.png", pictures[1]], top_k=2)
    (one,) = classifier.predict(pictures[0], top_k=2)
    assert both[0].names == one.names and len(one.names) == 2
    assert one.probabilities[0] >= one.probabilities[1] and sum(one.probabilities) <= 1 + 1e-6
    (asked,) = classifier.predict(pictures[0], top_k=9, names=["cat", "bus"])
    assert sorted(asked.names) == ["bus", "cat"] and sum(asked.probabilities) == pytest.approx(1)


def test_predict_agrees_with_logits_by_hand(run, clip) -> None:
    classifier = Classifier.load(run, clip=clip)
    picture = Image.new("RGB", (40, 50), "orange")
    z = clip.encode_image(clip.preprocess(picture)[None])
    expected = (clip.logit_scale * z @ classifier.host.class_weights().T).softmax(1)[0].sort(descending=True)
    (got,) = classifier.predict(picture, top_k=3)
    assert got.names == tuple(NAMES[i] for i in expected.indices.tolist())
    assert got.probabilities == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_bad_requests_are_named(run, clip, tmp_path) -> None:
    classifier = Classifier.load(run, clip=clip)
    with pytest.raises(ValueError, match="top_k=0"):
        classifier.predict([], top_k=0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        classifier.predict([tmp_path / "broken.png"])
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        classifier.predict(tmp_path / "missing.png")


def test_a_classifier_among_other_names(run, clip) -> None:
    classifier = Classifier.load(run, clip=clip)
    torch.testing.assert_close(classifier.class_weights(["fox"]), classifier.host.class_weights(["fox"]).detach())
    assert classifier.class_weights().shape == (3, clip.embed_dim) and not classifier.class_weights().requires_grad
    assert classifier.with_names(["fox"]).names == ("fox",)
    wider = classifier.with_names(["fox", "dog"], add=True)
    assert wider.names == (*NAMES, "fox") and classifier.names == tuple(NAMES)
    (answer,) = wider.predict(Image.new("RGB", (40, 50), "orange"), top_k=9)
    assert sorted(answer.names) == sorted(wider.names)
    with pytest.raises(TypeError, match="not the one string"):
        classifier.with_names("fox")
    with pytest.raises(ValueError, match="at least one class name"):
        classifier.predict([], names=[])


def test_class_weights_that_depend_on_the_image_are_refused(clip) -> None:
    with pytest.raises(ValueError, match="depend on the image; use predict"):
        Classifier(Conditional(clip, NAMES)).class_weights()
