"""What a training is given, as settings: model, images, hosts' and OGEN's options. Nothing heavy is imported here.

`RunConfig` is one training, as ``ogen train`` runs it; `ogenlib.bench.config.BenchConfig` compares many. The command
line has its options, their defaults and their help from these fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ogenlib.ogen.config import PRESETS
from ogenlib.train.config import PRECISIONS, TrainConfig
from ogenlib.utils.options import option

ALL_SHOTS = 0  # all training images
PRESET = "ogenlib"
FileName = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What every training has: a model, images, and how both are used. Each field says what it means.

    `settings` are those of `TrainConfig` that override every host's own, `ogen_settings` fields of `OGENConfig`.
    """

    model: str = option(
        "ogen-tiny", "ogen-tiny, an open_clip model name, local-dir:FOLDER or hf-hub:ORG/NAME", metavar="NAME"
    )
    pretrained: str | None = option(None, "open_clip tag or checkpoint file (not for ogen-tiny)", metavar="TAG_OR_PATH")
    dataset: str = option(
        "emoji-categories",
        "an embedded dataset (ogen data list), a folder root/class/image, or a CSV",
        metavar="NAME_OR_PATH",
    )
    root: FileName | None = option(
        None,
        "folder that holds the folders of published datasets (oxford_pets, imagenet, ...); nothing is downloaded",
        metavar="DIR",
        parse="path",
    )
    skip_bad: bool = option(False, "count unreadable images instead of stopping")
    shots: int = option(16, "training images of a class, or all", metavar="N", parse="shots")
    epochs: int = option(50, "passes over them", metavar="N")
    views: int = option(8, "augmented views of a training image; 1 means the plain image", metavar="N")
    precision: str = option("fp32", "of the forward pass", choices=PRECISIONS)
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    captions: FileName | None = option(
        None,
        "JSON or CSV (key,caption): captions of training images (arf), or texts of class names (flyp, r_adapter, ...)",
        metavar="FILE",
        parse="path",
    )
    pool: FileName | None = option(
        None,
        "images with captions that arf retrieves from: a folder with captions.json or captions.csv in it, such a file, "
        "or a Karpathy split",
        metavar="DIR|FILE",
        parse="path",
    )
    settings: Mapping[str, Any] = option(dict, "training settings in place of every method's own")
    preset: str = option(PRESET, "recipe that is followed", choices=tuple(PRESETS))
    ogen_settings: Mapping[str, Any] = option(
        dict,
        "another value for a setting of the preset, as JSON, for example k=5 or teacher=almt; may be given many times "
        "(default: the preset's own)",
        metavar="KEY=VALUE",
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(InputConfig):
    """One training. Each field says what it means.

    Raises:
        ValueError: a training setting out of range; what concerns methods and data is checked when they are there.
    """

    host: str = option("coop", "method (ogen methods)", metavar="NAME")
    names: tuple[str, ...] | None = None  # class names that are trained on; None for all of the dataset
    context: str | None = option(
        None, "words that start a learned context; default: those of the dataset's template", metavar="WORDS"
    )
    options: Mapping[str, Any] = option(
        dict,
        "another value for an argument of the method, as JSON or a word, for example n_visual=8 or "
        "teacher=runs/large; may be given many times (default: the method's own)",
        metavar="KEY=VALUE",
    )
    ogen: bool = option(False, "train the method with OGEN")
    unknown: tuple[str, ...] | None = option(
        None, "names without images that OGEN is to prepare for (default: none, held out)", metavar="NAME"
    )
    seed: int = option(1, "of every random draw", metavar="N", parse="seed")

    def __post_init__(self) -> None:
        TrainConfig(**self.training())

    def training(self) -> dict[str, Any]:
        """What `ogenlib.train.loop.fit` is told: settings that hold whatever the method's own are."""
        return {"epochs": self.epochs, "seed": self.seed, "precision": self.precision, **self.settings}
