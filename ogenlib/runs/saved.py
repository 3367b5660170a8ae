"""Saved runs: a folder with ``host.safetensors`` and ``run.json``, opened again as a `Classifier`.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ogenlib.data.dataset import check_classnames, open_image
from ogenlib.hosts import Batch, Host, build
from ogenlib.hosts.run_folder import AGAIN, CARD, EVIDENCE, FORMAT, GENERATOR, HOST, RunCard
from ogenlib.ogen.evidence_file import load_evidence
from ogenlib.ogen.generator_file import load_generator
from ogenlib.ogen.wrapper import OGEN
from ogenlib.towers import ClipLike, check_fingerprint, load_backbone
from ogenlib.utils.documents import DamagedFile, read_document
from ogenlib.utils.tensors import open_tensors, recorded_digest

T = TypeVar("T")
SMALL = 10_000  # a setting up to here makes no host large, whatever it counts


def read_run(folder: str | Path) -> RunCard:
    """The contents of ``run.json``; FileNotFoundError or ValueError if the folder is no run."""
    path = Path(folder) / CARD
    if not path.exists():
        raise FileNotFoundError(f"{folder} is not a saved run (no {CARD}); make one with model.save({str(folder)!r})")
    card = read_document(path, RunCard, what="a saved run's card", fix=AGAIN)
    if card["format"] != FORMAT:
        raise DamagedFile(f"{path} is not of format {FORMAT}; it was written by something else")
    return card


def load_run(
    folder: str | Path, clip: ClipLike | None = None, device: torch.device | str = "cpu", *, download: bool = False
) -> Host:
    """The host of a saved run.

    Args:
        clip: a loaded backbone, checked against the run's fingerprint; None loads the one the run names.
        download: whether a backbone that the run names may be fetched from a hub. False opens it from this machine
            alone, whatever a run that came from elsewhere says.

    Raises:
        FileNotFoundError, ValueError: not a run, files that were changed or are of another run, or another backbone.
    """
    record = read_run(folder)
    state = _tensors(folder, record)
    made_with = record["backbone"]
    if clip is None and not made_with["preprocess"]:
        raise ValueError(f"{folder} was trained on a table of features; pass clip=EmbeddingTable(names, text)")
    if clip is None:
        clip = load_backbone(
            made_with["name"],
            made_with["pretrained"],
            device=device,
            precision=record["precision"],
            quick_gelu=made_with["quick_gelu"],
            download=download,
        )
    check_fingerprint(dict(made_with), clip)
    host = _build(folder, record, clip, sum(tensor.numel() for tensor in state.values()))
    try:
        host.load_state_dict(state)
    except RuntimeError as error:
        raise DamagedFile(f"{Path(folder) / HOST} does not hold this run's tensors ({error}); {AGAIN}") from error
    card = record.get("ogen")
    if card is None:
        return host.eval()
    generator = _beside(folder, record, GENERATOR, load_generator)
    evidence = _beside(folder, record, EVIDENCE, load_evidence)
    try:
        return OGEN.from_card(host, card, generator, evidence).eval()
    except Exception as error:
        raise _unfit(folder, error) from error


def _tensors(folder: str | Path, record: RunCard) -> dict[str, Tensor]:
    path = Path(folder) / HOST
    try:
        opened = open_tensors(path, what="a run's tensors", fix=AGAIN)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing, and {CARD} says that there is one; {AGAIN}") from error
    _check_digest(path, opened.digest, record)
    return opened.tensors


def _beside(folder: str | Path, record: RunCard, name: str, load: Callable[[Path], T]) -> T | None:
    """What a file holds that stands beside the card, None where there is none of this name."""
    path, files = Path(folder) / name, record.get("files")
    if not (path.exists() if files is None else name in files):  # older cards do not say
        return None
    try:
        content = load(path)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing, and {CARD} says that there is one; {AGAIN}") from error
    _check_digest(path, recorded_digest(path), record)
    return content


def _check_digest(path: Path, digest: str | None, record: RunCard) -> None:
    """The files of a run belong together: training that ends between them leaves those of two runs."""
    expected = record.get("files", {}).get(path.name, digest)
    if expected != digest:
        raise DamagedFile(f"{path} is not the file that {CARD} beside it was written with; {AGAIN}")


def _build(folder: str | Path, record: RunCard, clip: ClipLike, numbers: int) -> Host:
    """The host, untrained; `numbers` are those of the run's tensors: no size among its settings can be larger."""
    for key, value in record["config"].items():
        if isinstance(value, int) and value > max(numbers, SMALL):
            raise _unfit(folder, ValueError(f"{key}={value} is more than the run's tensors hold"))
    try:
        return build(record["method"], clip, record["names"], **record["config"])
    except Exception as error:
        raise _unfit(folder, error) from error


def _unfit(folder: str | Path, error: Exception) -> DamagedFile:
    """A card can say anything, and a constructor may do anything with it; the reader of the file gets one line."""
    said = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
    return DamagedFile(f"{Path(folder) / CARD}: its settings make no method ({said}); {AGAIN}")


def names_for(host: Host, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The names asked for; None means those the host was trained on.

    Raises:
        TypeError: a string in place of a list.
        ValueError: no names, an empty one, or one given twice.
    """
    if names is None:
        return host.names
    chosen = check_classnames(names)
    if not chosen:
        raise ValueError("names=[]: pass at least one class name, or None for the names of the run")
    return chosen


@torch.no_grad()
def fixed_weights(host: Host, names: Sequence[str] | None = None, *, directions: bool = False) -> Tensor | None:
    """Class weights `(C, D)` of any names (None: the training names), fp32; None where they depend on the image.

    Args:
        directions: unit vectors, without the evidence that OGEN may have added (`Host.text_weights`).
    """
    probe = F.normalize(torch.ones(1, host.clip.embed_dim, device=host.device), dim=-1)
    weigh = host.eval().text_weights if directions else host.eval().class_weights
    weights = weigh(names_for(host, names), z=probe)
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
        cls,
        folder: str | Path,
        clip: ClipLike | None = None,
        device: torch.device | str = "cpu",
        *,
        download: bool = False,
    ) -> Classifier:
        """Open a folder written by `model.save`; arguments as for `load_run`."""
        return cls(load_run(folder, clip, device, download=download))

    def with_names(self, names: Sequence[str], *, add: bool = False) -> Classifier:
        """The same host choosing among other names; with `add`, among its present names and these."""
        chosen = names_for(self.host, names)
        return Classifier(self.host, tuple(dict.fromkeys((*self.names, *chosen))) if add else chosen)

    def class_weights(self, names: Sequence[str] | None = None) -> Tensor:
        """Unit vectors `(C, D)` of any names (None: its own), for use outside this library.

        `(C, 2 D)` where names without images are scored on the frozen image tower (`OGENConfig.frozen_images`), for
        features of `host.image_features`.

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
        chosen = self.names if names is None else names_for(self.host, names)
        many = [images] if isinstance(images, (str, os.PathLike, Image.Image)) else list(images)
        predictions = []
        fixed = fixed_weights(self.host, chosen)
        for start in range(0, len(many), batch_size):
            pictures = [open_image(i) for i in many[start : start + batch_size]]
            pixels = torch.stack([self.host.clip.preprocess(p) for p in pictures]).to(self.host.device)
            labels = torch.zeros(len(pictures), dtype=torch.long, device=self.host.device)
            z = self.host.image_features(Batch(labels, pixels=pixels))
            w = self.host.class_weights(chosen, z=z) if fixed is None else fixed
            chances = self.host.logits(z, w).softmax(-1).float()
            top = chances.topk(min(top_k, len(chosen)))
            for values, indices in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                predictions.append(Prediction(tuple(chosen[i] for i in indices), tuple(values)))
        return predictions
