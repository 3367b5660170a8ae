"""The Benchmark example of docs/ood.md runs on a benchmark of the same shape, made of embedded drawings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_ood.benchmark
from pytorch_ood.benchmark import Benchmark
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from ogenlib.data import ImageSet, load_dataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ood.md"
KNOWN, UNKNOWN = ("cat face", "bird", "boat", "fruit"), ("clock", "tool")
IMAGES = 3  # of a class


class Drawings(Dataset):
    """Transformed drawings of some classes, with labels or all -1."""

    def __init__(self, names: tuple[str, ...], transform: Any, known: bool) -> None:
        images = load_dataset("emoji-categories", test_domains=["noto"]).test.of_classes(names)
        labels = images.labels
        rows = [int(i) for c in range(len(names)) for i in (labels == c).nonzero()[:IMAGES, 0]]
        self.images: ImageSet = images.subset(rows)
        self.transform, self.known = transform, known

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images.open(index)), self.images[index].label if self.known else -1


class StandIn(Benchmark):
    """Takes what `ImageNet_OpenOOD` takes, and has two unknown sets."""

    ood_names = ("clock", "tool")

    def __init__(self, root: str, transform: Any) -> None:
        self.root, self.transform = root, transform

    def train_set(self) -> Dataset:
        return Drawings(KNOWN, self.transform, True)

    def test_sets(self, known: bool = True, unknown: bool = True) -> list:
        there = Drawings(KNOWN, self.transform, True)
        return [ConcatDataset([there, Drawings((name,), self.transform, False)]) for name in self.ood_names]


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, example = blocks()[:2]
    assert "ImageNet_OpenOOD" in example and len(example.strip().splitlines()) <= 12
    monkeypatch.setattr(pytorch_ood.benchmark, "ImageNet_OpenOOD", StandIn)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(compile(first, "docs/ood.md", "exec"), space)
    exec(compile(example.replace('"cuda"', '"cpu"'), "docs/ood.md", "exec"), space)
    rows = space["rows"]
    assert [(row["Detector"], row["Dataset"]) for row in rows] == [
        ("OGENDetector", "clock"),
        ("MCM", "clock"),
        ("OGENDetector", "tool"),
        ("MCM", "tool"),
    ]
    assert all(0 <= row["AUROC"] <= 1 and 0 <= row["FPR95TPR"] <= 1 for row in rows)
    # The encoder is one object, so a second pass finds the features where the first one left them.
    again = space["benchmark"].evaluate([space["ours"]], cache=True, **{**space["options"], "device": "cpu"})
    assert [row["AUROC"] for row in again] == [row["AUROC"] for row in rows if row["Detector"] == "OGENDetector"]
    assert all("ACC" in row for row in space["benchmark"].evaluate(space["twin"], loader_kwargs={"batch_size": 8}))
