"""`ogen bench --protocol retrieval`: what is trained and tested, the document, the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ogenlib.bench.protocols import plan
from ogenlib.bench.protocols.retrieval import features, recalls, shortened
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.data import FeatureBank, Item
from ogenlib.data.captions import CaptionedImages
from ogenlib.evaluate.recall import pair_up, retrieval
from ogenlib.hosts import build
from ogenlib.report.page import build_report
from ogenlib.report.text import summary_text
from ogenlib.results import tables as results
from ogenlib.utils.variant import Variant

pytestmark = pytest.mark.slow


def small(**changes: Any) -> BenchConfig:
    return BenchConfig(
        **{
            "protocol": "retrieval",
            "hosts": ("zero_shot",),
            "test_domains": ("noto", "openmoji"),
            "epochs": 1,
            "views": 1,
            "seeds": (1,),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("retrieval")
    run_bench(small(), out)
    return out


def karpathy(folder: Path, long: str = "") -> Path:
    """A split of colours: two training and three test images."""
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255,) * 3, "green": (0, 128, 0), "black": (0,) * 3}
    images = []
    for i, (name, rgb) in enumerate(colours.items()):
        Image.fromarray(np.full((8, 8, 3), rgb, np.uint8)).save(folder / f"{name}.png")
        sentences = [{"raw": f"a {name} picture."}, {"raw": f"all is {name}{long}"}]
        images.append({"filename": f"{name}.png", "split": "train" if i < 2 else "test", "sentences": sentences})
    path = folder / "dataset_colours.json"
    path.write_text(json.dumps({"images": images}), encoding="utf-8")
    return path


def test_the_document_has_recalls_in_place_of_accuracies(finished: Path) -> None:
    document = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert document["schema"] == results.SCHEMA
    rows = {row["domain"]: row for row in document["rows"]}
    assert rows.keys() == {"noto", "openmoji"}
    for row in rows.values():
        assert row["dataset"] == "emoji-captions" and all(row[m] is None for m in results.METRICS)
        assert row["image_to_text_r1"] <= row["image_to_text_r5"] <= row["image_to_text_r10"]
    # Colours that the model knows are found far more often than outlines; chance is below 1.
    assert rows["noto"]["mean_recall"] > rows["openmoji"]["mean_recall"] > 20
    card = document["protocol"]
    assert card["n_base"] == 494 and card["n_new"] == 0 and card["shots"] is None
    assert card["captions_shortened"] == {"train": 0, "test": 0}
    entry = next(e for e in document["summary"] if e["domain"] == "noto")
    assert entry["text_to_image_r1"] == [rows["noto"]["text_to_image_r1"], None] and entry["base"] == [None, None]


def test_rows_are_the_recalls_of_the_features(finished: Path, clip) -> None:
    planned = plan(small(test_domains=("openmoji",)))
    host = build("zero_shot", clip, ["x"], templates="{}")
    (path,) = (finished / "banks").glob("test-*.safetensors")
    bank = FeatureBank.load(path).of_domain("openmoji")
    assert bank.keys == planned.parts[0].images.keys
    texts, pairs = pair_up([planned.judge.captions[key] for key in bank.keys])  # type: ignore[attr-defined]
    by_hand = retrieval(bank.features[:, 0], clip.encode_text(texts), pairs).as_row()
    document = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    row = next(r for r in document["rows"] if r["domain"] == "openmoji")
    assert {m: row[m] for m in results.RETRIEVAL_METRICS} == pytest.approx(by_hand)
    z, w = features(host, bank, texts)
    torch.testing.assert_close(w, clip.encode_text(texts))
    torch.testing.assert_close(z, bank.features[:, 0])


def test_the_report_and_the_terminal_have_every_domain(finished: Path) -> None:
    document = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    page = build_report(document)
    assert "Recall</h2>" in page and "noto (training)" in page and "openmoji" in page
    assert "recall@1 of texts by image" in page and "494 images with captions" in page
    assert "Every test domain" not in page and "Summary on" not in page
    text = summary_text(document)
    row = next(r for r in document["rows"] if r["domain"] == "openmoji")
    assert "emoji-captions / openmoji" in text and f"{row['image_to_text_r1']:.1f}" in text
    assert "image→text @5  image→text @10" in text


def test_trained_images_are_classes_of_their_own() -> None:
    planned = plan(small())
    assert planned.known == tuple(planned.source.train.keys) and not planned.new and planned.shots == (1,)
    assert planned.texts is not None and set(planned.texts) == set(planned.known)
    assert planned.source.templates == ("{}",)
    assert not set(planned.known) & set(planned.parts[0].images.keys)


def test_a_karpathy_split_is_run(tmp_path: Path) -> None:
    path = karpathy(tmp_path, long=" and" * 40)
    document = run_bench(small(dataset=str(path), test_domains=None), tmp_path / "out")
    (row,) = document["rows"]
    assert row["dataset"] == "colours" and row["image_to_text_r10"] == 100
    assert document["protocol"]["captions_shortened"] == {"train": 2, "test": 3}


def test_a_method_learns_from_the_pairs(tmp_path: Path) -> None:
    config = small(dataset=str(karpathy(tmp_path)), test_domains=None, hosts=("carot",), epochs=2)
    assert config.variants() == (Variant("zero_shot"), Variant("carot"))  # without OGEN, though it could take it
    document = run_bench(config, tmp_path / "out")
    zero, trained = document["rows"]
    assert (zero["host"], trained["host"], trained["epochs"]) == ("zero_shot", "carot", 2)
    assert trained["text_to_image_r10"] == 100
    card = document["protocol"]["hosts"]["carot"]
    assert card["texts"] == 4 and card["templates"] == ["{}"]  # counted, not listed
    run = json.loads((tmp_path / "out" / "runs" / "carot-seed1" / "run.json").read_text(encoding="utf-8"))
    assert run["config"]["texts"]["red.png"] == ["a red picture.", "all is red"]
    assert "CaRot" in build_report(document) or "carot" in build_report(document)


def test_long_texts_lose_their_last_words(clip) -> None:
    length = clip.text.context_length
    texts = {"a": ("a dog", "dog " * 200), "b": ("cat  cat",)}
    fitting, cut = shortened(clip, texts)
    assert cut == 1 and fitting["a"][0] == "a dog" and fitting["b"] == ("cat  cat",)
    assert clip.text.tokens.count([fitting["a"][1]]) == [length]
    with pytest.raises(ValueError, match=r"longer than the .* tokens"):
        shortened(clip, {"a": ("x1" * 300,)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hosts": ("coop",)}, "coop learns names, not pairs.*compares zero_shot"),
        ({"ogen": "yes"}, "OGEN synthesizes features of classes|takes OGEN"),
        ({"suite": "emoji8"}, "a suite has none"),
        ({"targets": ("noto",)}, "targets"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_data_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"emoji-concepts/activities has no captions; .*dataset_coco.json"):
        plan(small(dataset="emoji-concepts/activities"))
    with pytest.raises(ValueError, match="is bundled and has no root"):
        plan(small(root=tmp_path))


def test_images_without_captions_are_refused(clip) -> None:
    bank = FeatureBank.extract(clip, plan(small(test_domains=("noto",))).parts[0].images.subset([0, 1]))
    with pytest.raises(ValueError, match="1 images have no captions"):
        recalls(build("zero_shot", clip, ["x"]), bank, {bank.keys[0]: ["a"]})


def test_captioned_images_can_be_named_among_others() -> None:
    pair = CaptionedImages((Item("a.png", 0), Item("b.png", 5)), (("a",), ("b",)))
    assert pair.images(["c", "b.png", "a.png"]).labels.tolist() == [2, 1]
