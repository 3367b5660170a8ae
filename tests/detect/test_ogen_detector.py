"""OGENDetector as pytorch-ood uses detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detect_world import World, make_world
from pytorch_ood.api import Detector, FeaturesDetector, LogitsDetector, ModelNotSetException, RequiresFittingException
from pytorch_ood.benchmark import Benchmark
from pytorch_ood.detector import MCM
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.utils import GridSearch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from ogenlib.detect import OGENDetector, boundary
from ogenlib.detect import base as detect_base
from ogenlib.detect import images as detect_images
from ogenlib.generators import fit_generator
from ogenlib.utils.documents import write_document


@pytest.fixture
def world() -> World:
    return make_world()


def auroc(detector: Detector, world: World) -> float:
    scores = torch.cat([detector.predict_features(world.known), detector.predict_features(world.unknown)])  # type: ignore[attr-defined]
    labels = torch.cat([torch.zeros(len(world.known)), -torch.ones(len(world.unknown))])
    return float(OODMetrics().update(scores, labels).compute()["AUROC"])


def loader(x: Tensor, y: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(x, y), batch_size=16)


def mixed(world: World) -> DataLoader:
    """Known and unknown images with labels."""
    labels = torch.cat([torch.zeros(len(world.known)), -torch.ones(len(world.unknown))]).long()
    return loader(torch.cat([world.known, world.unknown]), labels)


def test_names_alone_then_images_then_other_names_tell_more_and_more(world: World) -> None:
    names = OGENDetector(None, class_embeddings=world.names)
    alone = auroc(names, world)
    images = auroc(names.fit_features(world.fit_x, world.fit_y), world)
    told = OGENDetector(None, class_embeddings=world.names, unknown_embeddings=world.others)
    assert isinstance(names, FeaturesDetector)
    assert alone > auroc(MCM(None, world.names), world)
    assert images > alone
    assert auroc(told.fit_features(world.fit_x, world.fit_y), world) > images


def test_the_score_is_minus_the_weighted_evidence(world: World) -> None:
    detector = OGENDetector(None, class_embeddings=world.names).fit_features(world.fit_x, world.fit_y)
    weights = detector.weights
    assert list(weights) == ["text", "rival", "image"]
    z, w = F.normalize(world.known, dim=-1), F.normalize(world.names, dim=-1)
    fitted = F.normalize(world.fit_x, dim=-1)
    means = torch.stack([fitted[world.fit_y == c].mean(dim=0) for c in range(len(w))])
    seen = F.normalize(z - means.mean(dim=0), dim=-1) @ F.normalize(means - means.mean(dim=0), dim=-1).T
    expected = 0.01 * (z @ w.T / 0.01).logsumexp(1) * weights["text"] - (z @ w.T).mean(1) * weights["rival"]
    expected = expected + 0.02 * (seen / 0.02).logsumexp(1) * weights["image"]
    torch.testing.assert_close(detector.predict_features(world.known), -expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_length_and_dtype(world: World, dtype: torch.dtype) -> None:
    detector = OGENDetector(None, class_embeddings=world.names).fit_features(world.fit_x, world.fit_y)
    rows = world.known.to(dtype)
    scores = detector.predict_features(rows)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, detector.predict_features(F.normalize(rows.float(), dim=-1) * 0.01))
    assert detector.predict_features(rows[:0]).shape == (0,)


def test_pieces_change_nothing_and_no_graph_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = OGENDetector(None, class_embeddings=world.names.requires_grad_())
    whole = detector.predict_features(world.known.requires_grad_())
    assert not whole.requires_grad
    monkeypatch.setattr(detect_base, "PIECE", 7 * len(world.names))
    torch.testing.assert_close(detector.predict_features(world.known), whole, rtol=0, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(detector.predict_features(world.known), whole, rtol=0, atol=1e-6)


class Largest(TorchDispatchMode):
    """How many numbers the largest result of any operation had that is no view of `given`."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.memory, self.numbers = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, list | tuple) else [found]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() != self.memory:
                self.numbers = max(self.numbers, tensor.numel())
        return found


def test_fitting_holds_a_piece_of_the_rows_at_a_time(world: World) -> None:
    count = 10 * detect_images.ROWS
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(count, world.names.shape[1], generator=draws).half()
    y = torch.randint(-1, len(world.names), (count,), generator=draws)
    with Largest(x) as seen:
        detector = OGENDetector(None, class_embeddings=world.names).fit_features(x, y)
    assert seen.numbers <= max(detect_images.ROWS * x.shape[1], count * len(detector.weights)) < x.numel() / 9


def test_fitting_in_pieces_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = fit_generator(world.fit_x, world.fit_y, world.names, "shift")
    scores = []
    for size in (detect_images.ROWS, 7):
        monkeypatch.setattr(detect_images, "ROWS", size)
        monkeypatch.setattr(boundary, "ROWS", size)
        detector = OGENDetector(None, generator, world.names).fit_features(world.fit_x, world.fit_y)
        scores.append(detector.predict_features(world.known))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-5)


def test_fitting_reads_a_loader_as_it_reads_rows_and_leaves_unknown_ones_out(world: World) -> None:
    encoder = nn.Identity()
    y = torch.cat([world.fit_y, -torch.ones(5, dtype=torch.long)])
    x = torch.cat([world.fit_x, world.unknown[:5]])
    a = OGENDetector(encoder, class_embeddings=world.names).fit(loader(x, y))
    b = OGENDetector(None, class_embeddings=world.names).fit_features(world.fit_x, world.fit_y)
    c = OGENDetector(None, class_embeddings=world.names).fit_features(x, y)
    for other in (b, c):
        torch.testing.assert_close(a(world.known), other.predict_features(world.known))
    with pytest.raises(ModelNotSetException):
        b.fit(loader(x, y))
    with pytest.raises(ModelNotSetException):
        b.predict(world.known)


def test_required_fitting_is_demanded(world: World) -> None:
    detector = OGENDetector(nn.Identity(), class_embeddings=world.names, requires_fit=True)
    for call in (detector.predict_features, detector.predict):
        with pytest.raises(RequiresFittingException):
            call(world.known)
    assert detector.fit_features(world.fit_x, world.fit_y).predict_features(world.known).shape == (len(world.known),)
    assert not OGENDetector.requires_fit


def test_to_moves_all_of_it(world: World) -> None:
    generator = fit_generator(world.fit_x, world.fit_y, world.names, "shift")
    detector = OGENDetector(None, generator, world.names, world.others).fit_features(world.fit_x, world.fit_y)
    assert detector.to("cpu").device == torch.device("cpu")
    moved = detector.to("meta")
    assert moved.class_embeddings.device.type == moved.unknown_embeddings.device.type == "meta"
    assert {rows.device.type for rows in moved.state()[0].values()} == {"meta"}
    assert {p.device.type for p in [*generator.parameters(), *generator.buffers()]} == {"meta"}


def test_grid_search_over_its_own_space(world: World) -> None:
    detector = OGENDetector(nn.Identity(), class_embeddings=world.names, requires_fit=True, repeats=1)
    space = {"temperature": [0.005, 0.02], "image_temperature": [0.02], "n_synth": [4]}
    search = GridSearch(detector, loader(world.fit_x, world.fit_y), mixed(world), hyperparameter_space=space)
    best = search.run()
    assert len(search.results_) == 2
    assert detector.get_hyperparameters() == best
    again = OGENDetector(None, class_embeddings=world.names, repeats=1, **best)
    again.fit_features(world.fit_x, world.fit_y)
    torch.testing.assert_close(detector.predict_features(world.known), again.predict_features(world.known))


def test_settings_changed_after_fitting_take_effect(world: World) -> None:
    detector = OGENDetector(None, class_embeddings=world.names).fit_features(world.fit_x, world.fit_y)
    before = detector.predict_features(world.known)
    detector.set_hyperparameters(temperature=0.05)
    assert not torch.equal(detector.predict_features(world.known), before)
    with pytest.raises(ValueError, match="temperature=-1"):
        detector.set_hyperparameters(image_temperature=0.05, temperature=-1)
    assert (detector.image_temperature, detector.temperature) == (0.02, 0.05)
    with pytest.raises(ValueError, match="Unknown hyperparameter"):
        detector.set_hyperparameters(tau=1)
    detector.set_hyperparameters(temperature=0.01)
    torch.testing.assert_close(detector.predict_features(world.known), before)


class Pictures(Benchmark):
    ood_names = ("unknown",)

    def __init__(self, world: World) -> None:
        self.world = world

    def train_set(self) -> TensorDataset:
        return TensorDataset(self.world.fit_x, self.world.fit_y)

    def test_sets(self, known: bool = True, unknown: bool = True) -> list:
        return [mixed(self.world).dataset]


def test_benchmark_evaluates_it_and_its_logits_twin(world: World) -> None:
    encoder = nn.Identity()
    detector = OGENDetector(encoder, class_embeddings=world.names).fit_features(world.fit_x, world.fit_y)
    twin = detector.as_logits_detector()
    assert isinstance(twin, LogitsDetector)
    (plain,), (more,) = Pictures(world).evaluate(detector), Pictures(world).evaluate(twin)
    assert "ACC" not in plain
    assert plain["AUROC"] == pytest.approx(more["AUROC"], abs=1e-4)
    # All known test images are labelled 0 here.
    zero_shot = (F.normalize(world.known, dim=-1) @ world.names.T).argmax(dim=1) == 0
    assert more["ACC"] == pytest.approx(float(zero_shot.float().mean()), abs=1e-6)


def test_the_twin_scores_and_fits_like_the_detector(world: World) -> None:
    detector = OGENDetector(nn.Identity(), class_embeddings=world.names)
    twin = detector.as_logits_detector()
    twin.fit_logits(twin.logits(world.fit_x), world.fit_y)
    assert detector.fitted
    scores = detector.predict_features(world.known)
    torch.testing.assert_close(twin.predict_logits(twin.model(world.known)), scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(twin.predict(world.known), scores)
    assert int(twin.model(-world.known).argmax(dim=1).max()) < len(world.names)
    with pytest.raises(ValueError, match="class logits and behind them features"):
        twin.predict_logits(torch.zeros(2, len(world.names)))


def test_saved_and_loaded_it_predicts_the_same(world: World, tmp_path: Path) -> None:
    generator = fit_generator(world.fit_x, world.fit_y, world.names, "shift")
    detector = OGENDetector(None, generator, world.names, world.others, temperature=0.02)
    detector.fit_features(world.fit_x, world.fit_y)
    loaded = OGENDetector.load(detector.save(tmp_path / "detector"), encoder=nn.Identity())
    assert torch.equal(loaded.predict(world.known), detector.predict_features(world.known))
    loaded.set_hyperparameters(n_synth=5)
    detector.set_hyperparameters(n_synth=5)
    assert torch.equal(loaded.predict(world.known), detector.predict_features(world.known))
    names_only = OGENDetector(None, class_embeddings=world.names)
    names_only.save(tmp_path / "detector")
    assert not (tmp_path / "detector" / "generator.safetensors").exists()
    assert not OGENDetector.load(tmp_path / "detector").fitted


def test_files_that_are_none_are_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no detector"):
        OGENDetector.load(tmp_path)
    OGENDetector(None, class_embeddings=world.names).save(tmp_path)
    (tmp_path / "detector.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="cannot be read as a"):
        OGENDetector.load(tmp_path)
    record = json.loads((tmp_path / "detector.json").read_text())
    write_document(tmp_path / "detector.json", {**record, "format": "other"})
    with pytest.raises(ValueError, match="not of format"):
        OGENDetector.load(tmp_path)


@pytest.mark.parametrize("negatives", ["held-out", "synthesized", "both"])
def test_a_generator_can_play_unknown(world: World, negatives: str) -> None:
    generator = fit_generator(world.fit_x, world.fit_y, world.names, "text-only", iterations=30)
    detector = OGENDetector(None, generator, world.names, negatives=negatives)
    assert auroc(detector.fit_features(world.fit_x, world.fit_y), world) > 0.5
    assert OGENDetector(None, generator, world.names).negatives == "both"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "class_embeddings is missing"),
        ({"class_embeddings": torch.zeros(0, 4)}, ValueError, "no rows"),
        ({"class_embeddings": torch.zeros(4)}, ValueError, "shape"),
        ({"class_embeddings": [[1.0]]}, TypeError, "list"),
        ({"class_embeddings": torch.full((2, 4), torch.nan)}, ValueError, "2 of 2 rows"),
        ({"class_embeddings": torch.eye(4), "unknown_embeddings": torch.eye(3)}, ValueError, "as wide as"),
        ({"class_embeddings": torch.eye(4), "generator": torch.eye(4)}, TypeError, "fit_generator"),
        ({"class_embeddings": torch.eye(4), "temperature": 0.0}, ValueError, "temperature=0.0"),
        ({"class_embeddings": torch.eye(4), "n_synth": 0}, ValueError, "n_synth=0"),
        ({"class_embeddings": torch.eye(4), "shrink": -1.0}, ValueError, "shrink"),
        ({"class_embeddings": torch.eye(4), "negatives": "all"}, ValueError, "must be one of"),
        ({"class_embeddings": torch.eye(4), "negatives": "both"}, ValueError, "needs a generator"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OGENDetector(None, **arguments)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(3, 5), torch.zeros(3).long(), "as wide as"),
        (torch.ones(3, 4), torch.zeros(2).long(), "do not fit"),
        (torch.ones(3, 4), torch.zeros(3), "whole numbers"),
        (torch.ones(3, 4), torch.full((3,), 4), "label 4 has no class"),
        (torch.ones(3, 4), -torch.ones(3).long(), "none of the 3 rows"),
        (torch.full((3, 4), torch.inf), torch.zeros(3).long(), "NaN or infinity"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    detector = OGENDetector(None, class_embeddings=torch.eye(4))
    with pytest.raises(ValueError, match=message):
        detector.fit_features(x, y)
    with pytest.raises(ValueError, match="as wide as"):
        detector.predict_features(torch.ones(2, 5))


def test_it_describes_itself() -> None:
    assert OGENDetector.info.paper.year == 2024
    assert set(OGENDetector.hyperparameter_space) == {"temperature", "image_temperature", "n_synth"}
