"""Banks of features that were computed elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ogenlib.data import FeatureBank
from ogenlib.towers import EmbeddingTable

NAMES = ("dog", "bus", "cat")


def table(width: int = 5) -> EmbeddingTable:
    return EmbeddingTable(NAMES, torch.randn(3, width, generator=torch.Generator().manual_seed(0)))


def features() -> torch.Tensor:
    return 9 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


LABELS = [2, 0, 0, 1]


def test_rows_become_unit_and_keep_their_labels() -> None:
    bank = FeatureBank.from_features(features(), LABELS, NAMES, table(), domain="photos")
    assert torch.equal(bank.features, F.normalize(features(), dim=-1)[:, None])
    assert bank.labels.tolist() == LABELS and bank.labels.dtype == torch.int64
    assert bank.classnames == NAMES and bank.domains == ["photos"] * 4 and len(set(bank.keys)) == 4


def test_arrays_of_half_precision_are_taken() -> None:
    half = features().half()
    bank = FeatureBank.from_features(half.numpy(), np.array(LABELS, dtype=np.int16), NAMES, table())
    assert bank.features.dtype == torch.float32
    assert torch.equal(bank.features[:, 0], F.normalize(half.float(), dim=-1))


def test_the_fingerprint_names_the_table_and_the_data(tmp_path) -> None:
    def made(x: torch.Tensor, y: list[int] = LABELS, domain: str = "") -> dict:
        return FeatureBank.from_features(x, y, NAMES, table(), domain).fingerprint["data"]

    bank = FeatureBank.from_features(features(), LABELS, NAMES, table())
    assert bank.fingerprint["backbone"] == table().fingerprint()
    assert bank.fingerprint.keys() == {"backbone", "data", "views", "augment", "seed", "dtype"}
    assert made(features()) == bank.fingerprint["data"]
    different = [made(features() + 1), made(features(), [2, 0, 0, 0]), made(features(), domain="x")]
    assert len({d["hash"] for d in [*different, bank.fingerprint["data"]]}) == 4
    bank.save(tmp_path / "bank.safetensors")
    again = FeatureBank.load(tmp_path / "bank.safetensors", expect=bank.fingerprint)
    assert torch.equal(again.features, bank.features) and again.fingerprint == bank.fingerprint


@pytest.mark.parametrize(
    ("x", "y", "names", "message"),
    [
        (features()[:, :4], LABELS, NAMES, r"features of table have shape \(N, 5\), got \(4, 4\)"),
        (features()[:, None], LABELS, NAMES, r"got \(4, 1, 5\)"),
        (features()[:0], [], NAMES, r"got \(0, 5\)"),
        (features(), LABELS[:3], NAMES, r"4 features need as many whole-number labels, got \(3,\)"),
        (features(), [0.0, 1.0, 0.5, 2.0], NAMES, "whole-number labels.*float32"),
        (features(), [0, 1, 3, 2], NAMES, r"label 3 is outside 0 \.\. 2"),
        (features(), [0, 1, -1, 2], NAMES, "label -1 is outside"),
        (features(), LABELS, ("dog", "bus", "dog"), r"repeats \['dog'\]"),
        (features() * torch.tensor([[1.0], [1], [0], [1]]), LABELS, NAMES, r"rows \[2\] are zero or not finite"),
        (features() / torch.tensor([[1.0], [0], [1], [1]]), LABELS, NAMES, r"rows \[1\] are zero or not finite"),
    ],
)
def test_bad_features_are_refused(x, y, names, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureBank.from_features(x, y, names, table())
