"""Saved runs: a folder with ``host.safetensors`` and ``run.json``, opened again as a `Classifier`.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ogenlib.data.dataset import check_classnames, open_image
from ogenlib.generator_io import load_generator
from ogenlib.hosts import Batch, Host, build
from ogenlib.ogen import OGEN
from ogenlib.towers import ClipLike, check_fingerprint, load_backbone
from ogenlib.utils.documents import write_json
from ogenlib.utils.files import atomic_write

FORMAT = "ogenlib.run/1"


def save_run(host: Host, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write the host's tensors, then ``run.json``, which makes the folder a run; returns the folder.

    Args:
        extra: JSON-able facts to keep beside it (protocol, history).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = host.config()
    ogen = config.pop("ogen", None)
    inner = host.host if isinstance(host, OGEN) else host
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in inner.state_dict().items()}
    with atomic_write(folder / "host.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": FORMAT})
    record = {
        "format": FORMAT, "method": host.info.name, "config": config, "ogen": ogen, "names": list(host.names),
        "backbone": host.clip.fingerprint(), "precision": host.clip.precision, "extra": dict(extra or {}),
    }  # fmt: skip
    write_json(folder / "run.json", record)
    return folder


def read_run(folder: str | Path) -> dict[str, Any]:
    """The contents of ``run.json``; FileNotFoundError or ValueError if the folder is no run."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved run (no run.json); make one with model.save({str(folder)!r})")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); train and save the run again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}; it was written by something else")
    return record


def load_run(
    folder: str | Path, clip: ClipLike | None = None, device: torch.device | str = "cpu", *, download: bool = False
) -> Host:
    """The host of a saved run.

    Args:
        clip: a loaded backbone, checked against the run's fingerprint; None loads the one the run names.
        download: let that one be fetched from a hub.

    Raises:
        FileNotFoundError, ValueError: not a run, damaged tensors, or another backbone.
    """
    record = read_run(folder)
    made_with = record["backbone"]
    if clip is None and not made_with["preprocess"]:
        raise ValueError(f"{folder} was trained on a table of features; pass clip=EmbeddingTable(names, text)")
    if clip is None:
        clip = load_backbone(
            made_with["name"], made_with["pretrained"], device=device,
            precision=record["precision"], quick_gelu=made_with["quick_gelu"],
        )  # fmt: skip
    check_fingerprint(made_with, clip)
    host = build(record["method"], clip, record["names"], **record["config"])
    path = Path(folder) / "host.safetensors"
    try:
        host.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold this run's tensors ({error}); train it again") from error
    if not record.get("ogen"):
        return host.eval()
    kept = Path(folder) / "generator.safetensors"
    return OGEN.from_card(host, record["ogen"], load_generator(kept) if kept.exists() else None).eval()


def names_for(host: Host, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names asked for; None means those the host was trained on.

    Raises:
        TypeError: a string in place of a list.
        ValueError: no names, an empty one, or one given twice.
    """
    if names is None:
        return host.names
    wanted = check_classnames(names)
    if not wanted:
        raise ValueError("names=[]: pass at least one class name, or None for the names of the run")
    return wanted


@torch.no_grad()
def fixed_weights(host: Host, names: Sequence[str] | None = None) -> Tensor | None:
    """Unit rows `(C, D)` of any names (None: the training names), fp32; None where they depend on the image."""
    probe = F.normalize(torch.ones(1, host.clip.embed_dim, device=host.device), dim=-1)
    weights = host.eval().class_weights(names_for(host, names), z=probe)
    return weights.float() if weights.ndim == 2 else None


@dataclass(frozen=True)
class Prediction:
    """Names and softmax probabilities of one image, most likely first."""

    names: tuple[str, ...]
    probabilities: tuple[float, ...]


class Classifier:
    """A trained host ready to name images.

    Attributes:
        host: the trained host.
        names: the names it chooses among; `predict(names=...)` may ask for any others.
    """

    def __init__(self, host: Host, names: Sequence[str] | None = None) -> None:
        self.host = host.eval()
        self.names = names_for(host, names)

    @classmethod
    def load(
        cls, folder: str | Path, clip: ClipLike | None = None, device: torch.device | str = "cpu", *,
        download: bool = False,
    ) -> Classifier:  # fmt: skip
        """Open a folder written by `model.save`; see `load_run`."""
        return cls(load_run(folder, clip, device, download=download))

    def with_names(self, names: Sequence[str], *, add: bool = False) -> Classifier:
        """The same host choosing among other names; with `add`, among its present names and these."""
        wanted = names_for(self.host, names)
        return Classifier(self.host, tuple(dict.fromkeys((*self.names, *wanted))) if add else wanted)

    def class_weights(self, names: Sequence[str] | None = None) -> Tensor:
        """Unit rows `(C, D)` of any names (None: its own), for use outside this library.

        `(C, 2 D)` where names without images are scored on the frozen image tower (`OGENConfig.frozen_images`), for
        rows of `host.image_features`.

        Raises:
            ValueError: the host's weights depend on the image, so there are none without one.
        """
        weights = fixed_weights(self.host, self.names if names is None else names)
        if weights is None:
            raise ValueError(
                f"class weights of {self.host.info.name} depend on the image; use predict(images), "
                "or host.class_weights(names, z=image_features)"
            )
        return weights

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[str | os.PathLike[str] | Image.Image] | str | os.PathLike[str] | Image.Image,
        top_k: int = 1,
        names: Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> list[Prediction]:
        """The `top_k` likeliest names of each image (a path or PIL image).

        Raises:
            ValueError: `top_k` below 1, or an image that cannot be read, named.
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: must be 1 or more")
        wanted = self.names if names is None else names_for(self.host, names)
        many = [images] if isinstance(images, (str, os.PathLike, Image.Image)) else list(images)
        predictions = []
        fixed = fixed_weights(self.host, wanted)
        for start in range(0, len(many), batch_size):
            pictures = [open_image(i) for i in many[start : start + batch_size]]
            pixels = torch.stack([self.host.clip.preprocess(p) for p in pictures]).to(self.host.device)
            labels = torch.zeros(len(pictures), dtype=torch.long, device=self.host.device)
            z = self.host.image_features(Batch(labels, pixels=pixels))
            w = self.host.class_weights(wanted, z=z) if fixed is None else fixed
            chances = self.host.logits(z, w).softmax(-1).float()
            top = chances.topk(min(top_k, len(wanted)))
            for values, indices in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                predictions.append(Prediction(tuple(wanted[i] for i in indices), tuple(values)))
        return predictions
