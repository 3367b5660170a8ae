"""Read the real CLIP features (OpenAI ViT-B/32) that some benchmarks use; they lie outside the project.

Notation: `N` images, `C` classes, `D` = 512.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VARIABLE = "OGENLIB_CLIP_FEATURES"
DATASETS = ("dtd", "stanford_cars")
TEXT_FILE = "text_vitb32_knots8.npz"
# Splits that serve as training and as test rows. DTD has a single few-shot key per class, Cars no test split.
SPLITS = {"dtd": ("val", "test"), "stanford_cars": ("train16", "val")}


@dataclass(frozen=True)
class ClipFeatures:
    """Image features of a dataset with the zero-shot classifier of its class names.

    Attributes:
        text: `(C, D)` unit rows, prompt ensemble of each class name.
        train_x, test_x: `(N, D)` unit rows, fp32. The training rows of Cars are means of ten augmented views.
        train_y, test_y: `(N,)` int64, index into `classnames`.
    """

    name: str
    classnames: tuple[str, ...]
    text: Tensor
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--features DIR`, by default the environment variable or None."""
    folder = os.environ.get(VARIABLE)
    parser.add_argument(
        "--features",
        type=Path,
        default=Path(folder) if folder else None,
        metavar="DIR",
        help=f"folder of the real CLIP features (default: environment variable {VARIABLE}, now {folder or 'not set'})",
    )


def load_clip_features(name: str, folder: str | os.PathLike[str] | None = None) -> ClipFeatures:
    """The features of ``dtd`` or ``stanford_cars``; `folder` None reads the environment variable.

    Raises:
        ValueError: another name, or a file that does not hold what is expected.
        FileNotFoundError: no folder given, or a file is not in it.
    """
    if name not in DATASETS:
        raise ValueError(f"{name!r} has no image and text features; available: {', '.join(DATASETS)}")
    files = f"imas_vitb32_{name}.npz", TEXT_FILE
    images, texts = (load_arrays(file, folder) for file in files)
    try:
        text = unit(texts["text"][slice(*texts[f"range_{name}"])])
        classnames = tuple(str(n) for n in images["classnames"])
        train, test = ((unit(images[f"{s}_x"]), as_labels(images[f"{s}_y"])) for s in SPLITS[name])
    except KeyError as error:
        raise ValueError(f"{' or '.join(files)} lacks {error}; these are other files") from error
    if len(text) != len(classnames):
        raise ValueError(f"{files[1]} has {len(text)} rows for the {len(classnames)} classes of {files[0]}")
    return ClipFeatures(name, classnames, text, *train, *test)


def load_arrays(file: str, folder: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of one file of the folder, as they are; raises as `load_clip_features`."""
    with np.load(path_of(file, folder), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def file_hashes(name: str, folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """sha256 of the files that `load_clip_features` reads, by file name."""
    files = f"imas_vitb32_{name}.npz", TEXT_FILE
    return {file: hashlib.sha256(path_of(file, folder).read_bytes()).hexdigest() for file in files}


def path_of(file: str, folder: str | os.PathLike[str] | None) -> Path:
    """Where a file of the folder lies; FileNotFoundError without a folder, or if it is not there."""
    given = os.environ.get(VARIABLE) if folder is None else folder
    if not given:
        raise FileNotFoundError(f"no folder of real CLIP features: pass --features DIR or set {VARIABLE}")
    path = Path(given) / file
    if not path.is_file():
        where = f"no {file} in {given}; pass --features DIR or set {VARIABLE}"
        raise FileNotFoundError(f"real CLIP features not found: {where}")
    return path


def unit(rows: np.ndarray) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1)


def as_labels(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))
