"""The benchmark of the generators and the reader of the real CLIP features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.common import clip_features
from benchmarks.ogen.generators import Task, measure, summarize


def write_features(folder: Path, classes: int = 3, **changes: Any) -> None:
    """Files as the real ones: rows of no exact length in fp16, text rows of length 100."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "classnames": np.array([f"texture {c}" for c in range(classes)]),
        "val_x": rng.normal(size=(6, 8)).astype(np.float16),
        "val_y": np.arange(6, dtype=np.int16) % classes,
        "test_x": rng.normal(size=(9, 8)).astype(np.float16),
        "test_y": np.arange(9, dtype=np.int16) % classes,
    }
    np.savez(folder / "imas_vitb32_dtd.npz", **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
    text = 100 * rng.normal(size=(10, 8)).astype(np.float32)
    np.savez(folder / clip_features.TEXT_FILE, text=text, range_dtd=np.array([4, 7]))


def test_features_are_read_as_unit_rows(tmp_path: Path) -> None:
    write_features(tmp_path)
    found = clip_features.load_clip_features("dtd", tmp_path)
    assert found.name == "dtd" and found.classnames == ("texture 0", "texture 1", "texture 2")
    for rows, n in ((found.text, 3), (found.train_x, 6), (found.test_x, 9)):
        assert rows.shape == (n, 8) and rows.dtype == torch.float32
        assert torch.allclose(rows.norm(dim=1), torch.ones(n))
    assert found.train_y.dtype == torch.int64 and found.test_y.tolist() == [0, 1, 2] * 3
    with np.load(tmp_path / clip_features.TEXT_FILE) as file:
        assert torch.allclose(found.text, F.normalize(torch.from_numpy(file["text"][4:7]), dim=1))
    assert set(clip_features.file_hashes("dtd", tmp_path)) == {"imas_vitb32_dtd.npz", clip_features.TEXT_FILE}


def test_absent_and_foreign_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(clip_features.VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=r"pass --features DIR or set OGENLIB_CLIP_FEATURES"):
        clip_features.load_clip_features("dtd")
    monkeypatch.setenv(clip_features.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"no imas_vitb32_dtd\.npz in {tmp_path}; pass --features"):
        clip_features.load_clip_features("dtd")
    write_features(tmp_path)
    assert len(clip_features.load_clip_features("dtd").text) == 3
    with pytest.raises(ValueError, match="available: dtd, stanford_cars"):
        clip_features.load_clip_features("ucf101")
    write_features(tmp_path, test_x=None)
    with pytest.raises(ValueError, match="test_x"):
        clip_features.load_clip_features("dtd")
    write_features(tmp_path, classes=2)
    with pytest.raises(ValueError, match="3 rows for the 2 classes"):
        clip_features.load_clip_features("dtd")


@pytest.mark.parametrize("name, accuracy", [("dtd", 0.448), ("stanford_cars", 0.590)])
def test_real_features_have_their_known_zero_shot_accuracy(name: str, accuracy: float) -> None:
    try:
        found = clip_features.load_clip_features(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    hits = (found.test_x @ found.text.T).argmax(1) == found.test_y
    assert hits.double().mean().item() == pytest.approx(accuracy, abs=5e-4)


def small_task() -> Task:
    draws = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(16, 8, generator=draws), dim=1)

    def rows(n_per_class: int, which: slice) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(len(text[which])).repeat_interleave(n_per_class)
        noise = 0.2 * torch.randn(len(labels), 8, generator=draws)
        return F.normalize(text[which][labels] + noise, dim=1), labels

    known, new = slice(0, 10), slice(10, 16)
    spare, labels = rows(5, new)
    return Task("small", *rows(4, known), text[known], *rows(6, new), text[new], spare[2:], labels[2:], {})


def test_every_row_is_measured_on_as_many_rows() -> None:
    task = small_task()
    rows = measure(task, 1, ["shift"])
    assert [(r["variant"], r["spread"]) for r in rows] == [
        ("real", None),
        ("text", None),
        ("shift", "residual"),
        ("shift", "none"),
    ]
    real, text, wide, narrow = rows
    assert len({r["zero_shot"] for r in rows}) == 1
    assert text["nearest_mean"] == text["zero_shot"] and "frechet" not in text
    assert real["nearest_mean"] > 80 and 0 <= real["coverage"] <= 1
    assert wide["frechet"] != narrow["frechet"]
    assert rows[2:] != measure(task, 2, ["shift"])[2:]


def test_the_summary_is_over_seeds() -> None:
    task = small_task()
    rows = [row for seed in (1, 2, 3) for row in measure(task, seed, ["shift"])]
    entry = next(e for e in summarize(rows) if e["spread"] == "none")
    values = torch.tensor([r["ridge"] for r in rows if r["spread"] == "none"])
    assert entry["n_seeds"] == 3 and entry["variant"] == "shift"
    assert entry["ridge"] == pytest.approx([values.mean().item(), values.std().item()], abs=1e-4)
    text = next(e for e in summarize(rows) if e["variant"] == "text")
    assert "frechet" not in text and text["cosine"][1] == 0.0
