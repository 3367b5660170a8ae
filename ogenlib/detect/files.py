"""A detector in a folder: ``detector.safetensors``, ``detector.json`` and, if it has one, its generator's file.

The JSON is written last and holds the digests of the others, so files of two detectors do not pass for one.

Notation: `N` fitted images, `C` classes, `U` other names, `D` embedding, `E` columns of evidence.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor
from typing_extensions import NotRequired

from ogenlib.detect.base import Encoder
from ogenlib.detect.boundary import Plan
from ogenlib.detect.ogen_detector import OGENDetector
from ogenlib.ogen.generator_file import load_generator, save_generator
from ogenlib.utils.documents import DamagedFile, read_document, write_document
from ogenlib.utils.tensors import TensorFile, open_tensors, recorded_digest, write_tensors

FORMAT = "ogenlib.detector/1"
CARD, TENSORS, GENERATOR = "detector.json", "detector.safetensors", "generator.safetensors"
WHAT, FIX = "a saved detector", "save the detector again"
NEEDS = ("class_embeddings", "weights")
PAIRS = (("features", "labels"), ("features", "centre"), ("centre", "directions"))  # both of them or neither

Found = TypeVar("Found", bound=OGENDetector)


class _Settings(TypedDict):
    """Arguments of `OGENDetector`."""

    temperature: float
    image_temperature: float
    n_synth: int | float
    negatives: str
    requires_fit: bool
    repeats: int | float
    shrink: float
    spread: float
    seed: int


class _Record(TypedDict):
    """The contents of ``detector.json``; `files` is absent from those of earlier versions."""

    format: str
    settings: _Settings
    learned_with: Plan
    generator: bool
    files: NotRequired[dict[str, str]]


def save_detector(detector: OGENDetector, folder: str | Path) -> Path:
    """Write the folder; the features of fitted images `(N, D)` are in it: keep it as private as the images."""
    folder = Path(folder)
    # Learned now, so that the file predicts as this detector does, whatever the machine it is opened on.
    detector.ready()
    tensors, learned_with = detector.state()
    files = {TENSORS: write_tensors(folder / TENSORS, tensors)}
    if detector.generator is not None:
        files[GENERATOR] = save_generator(detector.generator, folder / GENERATOR)
    else:
        (folder / GENERATOR).unlink(missing_ok=True)
    settings = {name: getattr(detector, name) for name in _Settings.__annotations__}
    record = {
        "format": FORMAT,
        "settings": settings,
        "learned_with": asdict(learned_with),
        "generator": detector.generator is not None,
        "files": files,
    }
    write_document(folder / CARD, record)
    return folder


def load_detector(kind: type[Found], folder: str | Path, encoder: Encoder | None, device: str | torch.device) -> Found:
    """The detector of a folder, on `device`.

    Raises:
        FileNotFoundError: the folder holds no detector, or not all of one.
        DamagedFile: contents that were not written so, or files of two detectors; one file is named.
    """
    folder = Path(folder)
    path = folder / CARD
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no detector (no {CARD}); detector.save(folder) writes one")
    record = read_document(path, _Record, what=WHAT, fix=FIX)
    if record["format"] != FORMAT:
        raise DamagedFile(f"{path} is not of format {FORMAT}; it was written by something else")
    opened = open_tensors(folder / TENSORS, what=WHAT, fix=FIX, needs=NEEDS)
    _check_tensors(opened)
    generator = load_generator(folder / GENERATOR) if record["generator"] else None
    _check_together(path, record, opened)
    embeddings, others = opened.tensors["class_embeddings"], opened.tensors.get("unknown_embeddings")
    settings: dict[str, Any] = dict(record["settings"])
    try:
        detector = kind(encoder, generator, embeddings, others, **settings)
        detector.load_state(opened.tensors, record["learned_with"])
    except (ValueError, OverflowError) as error:  # a setting out of range, or a generator of another width
        raise DamagedFile(f"{path} describes no detector: {error}; {FIX}") from error
    return detector.to(device)


def _check_together(path: Path, record: _Record, opened: TensorFile) -> None:
    """Refuse files that the JSON beside them was not written with."""
    if "files" not in record:
        return
    digests = {TENSORS: opened.digest}
    if record["generator"]:
        digests[GENERATOR] = recorded_digest(path.with_name(GENERATOR))
    for name, digest in digests.items():
        if record["files"].get(name) != digest:
            raise DamagedFile(f"{path.with_name(name)} is not the one that {path.name} was written with; {FIX}")


def _check_tensors(opened: TensorFile) -> None:
    """Refuse tensors that are no detector's: their shapes, types and labels."""

    def refuse(name: str, reason: str) -> DamagedFile:
        return DamagedFile(f"{opened.path}: the tensor {name!r} {reason}; {FIX}")

    tensors = opened.tensors
    embeddings = tensors["class_embeddings"]
    if embeddings.ndim != 2:
        raise refuse("class_embeddings", f"has shape {tuple(embeddings.shape)}, where rows (C, D) are needed")
    for one, other in PAIRS:
        if (one in tensors) != (other in tensors):
            raise refuse(*((one, f"is there without {other!r}") if one in tensors else (other, f"lacks {one!r}")))
    for name, shape in _shapes(tensors).items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        fits = tensor.ndim == len(shape) and all(s in (None, n) for n, s in zip(tensor.shape, shape, strict=True))
        if not fits or not tensor.numel():
            sizes = ", ".join("any" if s is None else str(s) for s in shape)
            raise refuse(name, f"has shape {tuple(tensor.shape)}, where ({sizes}) is needed")
        if name not in ("features", "labels") and tensor.dtype != torch.float32:
            raise refuse(name, f"is {tensor.dtype}, where torch.float32 is needed")
    if "labels" in tensors:
        labels = tensors["labels"]
        if labels.dtype != torch.int64 or int(labels.min()) < 0 or int(labels.max()) >= len(embeddings):
            raise refuse(
                "labels",
                f"is {labels.dtype} from {labels.min()} to {labels.max()}, where torch.int64 from "
                f"0 to {len(embeddings) - 1} is needed, the classes",
            )
        if tensors["features"].is_complex():
            raise refuse("features", f"is {tensors['features'].dtype}, where real numbers are needed")


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int | None, ...]]:
    """What belongs to the class embeddings; None: any number."""
    classes, dim = tensors["class_embeddings"].shape
    images = len(tensors["features"]) if "features" in tensors and tensors["features"].ndim else None
    return {
        "class_embeddings": (None, dim),
        "unknown_embeddings": (None, dim),
        "features": (None, dim),
        "labels": (images,),
        "weights": (2 if images is None else 3,),
        "centre": (dim,),
        "directions": (classes, dim),
    }
