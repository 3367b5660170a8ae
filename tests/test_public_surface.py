"""The names and calls that other code relies on, one after the other as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ogenlib as og
from ogenlib.distill import AdaptiveLocalMeanTeacher
from ogenlib.generators import fit_generator


@pytest.mark.slow
def test_a_model_is_trained_measured_saved_and_used(tmp_path: Path) -> None:
    clip = og.load_backbone("ogen-tiny")
    data = og.load_dataset("emoji-categories", test_domains=["noto"])
    split = og.base_new_split(data.classnames)
    train = og.few_shot(data.train, shots=1, seed=1)
    bank = og.FeatureBank.extract(clip, train, views=1)
    bank.save(tmp_path / "bank.safetensors")
    bank = og.FeatureBank.load(tmp_path / "bank.safetensors")
    host = og.hosts.CoOp(clip, split.base, context="an icon of a")
    # One image a class has no residuals to lend, so clouds have none here.
    model = og.OGEN(host, known=split.base, unknown=split.new, iterations=5, per_class=2, spread="none")
    og.fit(model, bank, epochs=1, seed=1)
    scores = og.evaluate.base_to_new(model, data.test, split).domains["noto"]
    assert {"base", "new", "H", "joint_base", "joint_new", "joint_H"} <= set(scores)
    assert model.class_weights(["any", "new", "names"]).shape == (3, clip.embed_dim)
    model.save(tmp_path / "run")
    classifier = og.Classifier.load(tmp_path / "run")
    (answer,) = classifier.predict([data.test.open(0)], top_k=5)
    assert len(answer.names) == 5
    torch.testing.assert_close(classifier.class_weights(["fox"]), model.class_weights(["fox"]).detach())
    assert og.few_shot([("a.png", 0), ("b.png", 1), ("c.png", 0)], shots=1, seed=1) is not None


def test_generator_and_teacher_stand_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    embeddings, labels = unit(torch.randn(6, 16, generator=draws), dim=-1), torch.arange(6).repeat_interleave(3)
    features = unit(embeddings[labels] + 0.1 * torch.randn(18, 16, generator=draws), dim=-1)
    made = fit_generator(features, labels, embeddings, variant="joint", iterations=3)
    rows = made.synthesize(embeddings[:2], n_per_class=4, generator=torch.Generator())
    assert rows.shape == (8, 16)
    teacher = AdaptiveLocalMeanTeacher({"ctx": torch.zeros(2)}, total=50, m_min=2, m_max=9, decay=0.9)
    assert (teacher.window(1), teacher.window(50)) == (2, 9)
    teacher.update(1)
    assert torch.equal(teacher.state()["ctx"], torch.zeros(2))


def test_the_detector_is_a_features_detector() -> None:
    pytest.importorskip("ogenlib.detect", reason="ogenlib.detect does not exist yet")
    from pytorch_ood.api import FeaturesDetector

    from ogenlib.detect import OGENDetector

    assert issubclass(OGENDetector, FeaturesDetector)
