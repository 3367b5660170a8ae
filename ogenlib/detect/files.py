"""A detector in a folder: ``detector.safetensors``, ``detector.json`` and, if it has one, its generator's file.

Notation: `N` fitted images, `D` embedding.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ogenlib.detect.base import Encoder
from ogenlib.detect.boundary import Plan
from ogenlib.detect.ogen_detector import OGENDetector
from ogenlib.generator_io import load_generator, save_generator
from ogenlib.utils.documents import write_json
from ogenlib.utils.files import atomic_write

FORMAT = "ogenlib.detector/1"
GENERATOR = "generator.safetensors"
SETTINGS = ("temperature", "image_temperature", "n_synth", "negatives", "requires_fit", "repeats", "shrink", "spread",
            "seed")  # fmt: skip

Found = TypeVar("Found", bound=OGENDetector)


def save_detector(detector: OGENDetector, folder: str | Path) -> Path:
    """Write the folder; the features of fitted images `(N, D)` are in it: keep it as private as the images."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Learned now, so that the file predicts as this detector does, whatever the machine it is opened on.
    detector.ready()
    tensors, learned_with = detector.state()
    with atomic_write(folder / "detector.safetensors") as temporary:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary)
    if detector.generator is not None:
        save_generator(detector.generator, folder / GENERATOR)
    else:
        (folder / GENERATOR).unlink(missing_ok=True)
    settings = {name: getattr(detector, name) for name in SETTINGS}
    record = {"format": FORMAT, "settings": settings, "learned_with": asdict(learned_with),
              "generator": detector.generator is not None}  # fmt: skip
    write_json(folder / "detector.json", record)
    return folder


def load_detector(kind: type[Found], folder: str | Path, encoder: Encoder | None, device: str | torch.device) -> Found:
    """The detector of a folder, on `device`; FileNotFoundError or ValueError if the folder holds none."""
    folder = Path(folder)
    path = folder / "detector.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no detector (no detector.json); detector.save(folder) writes one")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); save the detector again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}; it was written by something else")
    try:
        tensors = load_file(folder / "detector.safetensors")
        generator = load_generator(folder / GENERATOR) if record["generator"] else None
        others = tensors.get("unknown_embeddings")
        detector = kind(encoder, generator, tensors["class_embeddings"], others, **record["settings"])
        detector.load_state(tensors, Plan(**record["learned_with"]))
    except (SafetensorError, KeyError, TypeError, FileNotFoundError) as error:
        raise ValueError(f"{folder} holds a damaged detector ({error!r}); save it again") from error
    return detector.to(device)
