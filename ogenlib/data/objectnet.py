"""ObjectNet: the 113 classes it shares with ImageNet, and its red border cut off.

Barbu et al., "ObjectNet: a large-scale bias-controlled dataset" (NeurIPS 2019), https://objectnet.dev. The full set
has 50,273 images in 313 folders; 18,574 images of 113 folders are of ImageNet classes, and these are what robust
fine-tuning papers test on. Copies with fewer images are about, so other counts are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from ogenlib.data.dataset import image_digest
from ogenlib.data.decode import decoded
from ogenlib.data.layouts import Layout
from ogenlib.data.listing import Entry, Listing, image_files, need, read_json
from ogenlib.data.place import Place

BORDER = 2  # pixels; the drawn border is one pixel wide and JPEG smears it, so evaluations cut two
FULL_FOLDERS, FULL_IMAGES = 313, 50_273


@dataclass(frozen=True)
class Cropped:
    """An image file without the `border` pixels on every side."""

    path: Path
    border: int

    def __call__(self) -> Image.Image:
        with decoded(self.path) as image:
            return ImageOps.crop(image.convert("RGB"), self.border)

    def digest(self) -> str:
        """SHA-256 of the file."""
        return image_digest(self.path)


def read_objectnet(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    """The images of the classes that `mappings/objectnet_to_imagenet_1k.json` maps, under ObjectNet's own names.

    `info["imagenet"]` maps every class name to ImageNet's (long) names of it.
    Raises FileNotFoundError for a missing mapping, ValueError if a mapped class has no folder, and (unless
    the layout is not strict) for other numbers of classes and images than the published ones.
    """
    mappings = images.parent / "mappings"
    shared, labels = (
        read_json(need(mappings / name, layout), "ObjectNet's mapping", dict[str, str])
        for name in ("objectnet_to_imagenet_1k.json", "folder_to_objectnet_label.json")
    )
    folders = sorted(folder for folder, label in labels.items() if label in shared)
    entries = [
        Entry(f"{folder}/{file}", i, "test")
        for i, folder in enumerate(folders)
        if (images / folder).is_dir()
        for file in image_files(images / folder)
    ]
    classnames = [labels[folder] for folder in folders]
    held = {entry.label for entry in entries}
    empty = [folder for i, folder in enumerate(folders) if i not in held]
    counted = sum(1 for path in images.iterdir() if path.is_dir() and path.name[0] != ".")
    notes = [f"no images of {len(empty)} of {len(folders)} classes, the first {empty[0]}"] if empty else []
    info = {"imagenet": {labels[folder]: shared[labels[folder]].split("; ") for folder in folders}, "folders": counted}
    return Listing(str(images), classnames, entries, border=BORDER, notes=notes, info=info)


def refuse_truncated(layout: Layout, listing: Listing) -> None:
    """Raise ValueError unless the numbers are the published ones; for layouts that are `strict`."""
    images, classes = len(listing.entries), len({entry.label for entry in listing.entries})
    expected = sum(layout.counts.values())
    if layout.strict and (images, classes) != (expected, layout.classes):
        raise ValueError(
            f"{layout.name}: {listing.source} holds {images:,} images of {classes} classes shared with ImageNet, and "
            f"the published set has {expected:,} of {layout.classes} ({FULL_IMAGES:,} images in {FULL_FOLDERS} folders "
            f"in full): a truncated or other copy, whose accuracy cannot be compared; get it from {layout.page}"
        )
