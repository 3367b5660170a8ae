"""A detector of a saved run's names, and image files before it: what ``ogen detect`` does.

Notation: `D` embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ogenlib.data import FeatureBank, ImageSet, load_dataset
from ogenlib.data.dataset import open_image
from ogenlib.detect.of_host import detector_of, encoder_of, seen
from ogenlib.detect.ogen_detector import OGENDetector
from ogenlib.hosts import Host
from ogenlib.train.batches import Bank, load_bank

BATCH = 64


def run_detector(
    host: Host, unknown: Sequence[str] | None = None, fit: FeatureBank | ImageSet | None = None
) -> OGENDetector:
    """The detector of a run's names, with other names and images of the known classes where there are some.

    Raises:
        ValueError: class weights that depend on the image, an unknown name that is known, or a bank that does not
            belong to the run.
    """
    return detector_of(host, unknown, None if fit is None else known_images(host, fit), encoder_of(host, unknown))


def known_images(host: Host, images: FeatureBank | ImageSet) -> tuple[Tensor, Tensor]:
    """Features `(N, D)` (`(N, 2 D)` of two towers) and labels `(N,)` of the N images that the run has names for.

    Of a bank the first views.

    Raises:
        ValueError: a bank of another backbone, a host that changes the image side and features of the frozen one, or
            no image of a known class.
    """
    shared = [name for name in images.classnames if name in host.names]
    if isinstance(images, FeatureBank):
        if not host.uses_cached_features:
            raise ValueError(
                f"{host.info.name} changes the image side, so a bank of features of the frozen one is of no use; give "
                "the images themselves, a folder root/class/image or a CSV"
            )
        made_with = images.fingerprint.get("backbone", {}).get("weights_hash")
        if made_with is not None and made_with != host.clip.weights_hash:
            raise ValueError(
                f"the bank was made with weights {made_with}, the run has {host.clip.weights_hash}; make it again with "
                "ogen extract and the run's --model and --pretrained"
            )
    if not shared:
        raise ValueError(
            f"there are images of {', '.join(images.classnames[:3])}, ... and of none of the run's names "
            f"{', '.join(host.names[:3])}, ..."
        )
    if isinstance(images, ImageSet):
        picked: Bank = load_bank(host, host.clip, images.of_classes(shared))
    else:
        picked = images.select(shared)
    numbers = torch.tensor([host.names.index(name) for name in picked.classnames])
    return seen(host, picked).z, numbers[picked.labels.cpu()]


def read_images(path: Path) -> FeatureBank | ImageSet:
    """A bank that `ogen extract` wrote, or all images of a folder or CSV."""
    if path.suffix == ".safetensors" or (path.is_dir() and any(_shards(path))):
        return FeatureBank.load(path)
    data = load_dataset(path)
    return ImageSet([item for part in data.splits().values() for item in part], data.classnames)


def score_files(detector: OGENDetector, host: Host, paths: Sequence[Path]) -> Iterator[tuple[Path, str, float]]:
    """Each image file with the known name it is nearest to, and its score: the higher, the less it is known."""
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        pixels = torch.stack([host.clip.preprocess(open_image(path)) for path in some]).to(host.device)
        z = detector.encoder(pixels) if detector.encoder is not None else pixels
        nearest = (z @ detector.class_embeddings.T).argmax(dim=1)
        for path, score, c in zip(some, detector.predict_features(z).tolist(), nearest.tolist(), strict=True):
            yield path, host.names[c], score


def _shards(folder: Path) -> list[Path]:
    """The banks in a folder, without the hidden files that stand beside them while they are written."""
    return [path for path in folder.glob("*.safetensors") if not path.name.startswith(".")]
