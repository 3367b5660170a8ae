"""Tasks of the OOD study on real CLIP features: what is known, what it is fitted on, what it is told from.

Far: ImageNet against DTD, UCF101 and Flowers. ImageNet's rows are means of augmented crops, those of the others single
views. Near, single views on both sides for DTD and Cars: base names against new ones. Validation tasks are made of
classes that are known in every test task, and of rows that detectors may be fitted on: no test row, and no class that
is unknown in a test.

Notation: `N` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.clip_features import as_labels, load_arrays, load_clip_features, unit
from ogenlib.detect.overlap import overlapping

FAR = ("imagenet-dtd", "imagenet-ucf101", "imagenet-flowers")
NEAR = ("dtd-base-new", "cars-base-new", "imagenet-first-last")
VOCABULARY = ("eurosat", "gtsrb", "resisc45", "sun397")  # names of label sets that no task takes images from
DUPLICATE = 0.995  # cosine from which two rows of ImageNet are the same image


@dataclass(frozen=True)
class Task:
    """One task. `names` `(C, D)` known, `others` `(U, D)` the unknown classes' names or None; unit rows throughout."""

    name: str
    names: Tensor
    others: Tensor | None
    fit_x: Tensor
    fit_y: Tensor
    known: Tensor
    unknown: Tensor
    excluded: tuple[str, ...] = ()

    def first(self, shots: int, seed: int) -> Task:
        """With at most `shots` fitted images of a class, drawn by `seed`."""
        draws = torch.Generator().manual_seed(seed)
        chosen = torch.cat(
            [
                indices[torch.randperm(len(indices), generator=draws)[:shots]]
                for indices in ((self.fit_y == c).nonzero()[:, 0] for c in range(len(self.names)))
            ]
        )
        return replace(self, fit_x=self.fit_x[chosen], fit_y=self.fit_y[chosen])


@dataclass(frozen=True)
class Features:
    """Fitted and test features of a dataset with names, and how many of its classes are base."""

    names: Tensor
    fit_x: Tensor
    fit_y: Tensor
    test_x: Tensor
    test_y: Tensor
    base: int


def load_features(folder: Path) -> dict[str, Features]:
    """ImageNet, DTD and Cars."""
    datasets = {}
    for short, name in (("dtd", "dtd"), ("cars", "stanford_cars")):
        data = load_clip_features(name, folder)
        base = (len(data.classnames) + 1) // 2
        datasets[short] = Features(data.text, data.train_x, data.train_y, data.test_x, data.test_y, base)
    images = load_arrays("imas_vitb32_imagenet.npz", folder)
    fit_x = unit(images["train4_x"])
    test_x = torch.cat([unit(images[f"train{k}_x"]) for k in (1, 2)])
    test_y = torch.cat([as_labels(images[f"train{k}_y"]) for k in (1, 2)])
    fresh = (test_x @ fit_x.T).amax(dim=1) < DUPLICATE
    text = unit(load_arrays("text_vitb32_imagenet1k.npz", folder)["text_b"])
    datasets["imagenet"] = Features(text, fit_x, as_labels(images["train4_y"]), test_x[fresh], test_y[fresh], 500)
    return datasets


def vocabulary(folder: Path) -> Tensor:
    """Names `(U, D)` of other label sets, for detectors that want negative names."""
    texts = load_arrays("text_vitb32_knots8.npz", folder)
    return torch.cat([unit(texts["text"][slice(*texts[f"range_{name}"])]) for name in VOCABULARY])


def test_tasks(folder: str | os.PathLike[str], *, exclude: bool = True) -> list[Task]:
    """The six test tasks; `exclude` leaves classes out that share a name with ImageNet."""
    folder = Path(folder)
    datasets = load_features(folder)
    whole = datasets["imagenet"]
    lemmas = tuple(str(n) for n in load_arrays("text_vitb32_imagenet1k.npz", folder)["wordnet_labels"])
    tasks = []
    for task, file in zip(FAR, ("dtd", "ucf101", "oxford_flowers"), strict=True):
        images = load_arrays(f"imas_vitb32_{file}.npz", folder)
        names = tuple(str(n).replace("_", " ") for n in images["classnames"])
        if file == "oxford_flowers":
            names = flower_names(folder, names)
        out = torch.tensor(overlapping(names, lemmas)) if exclude else torch.zeros(len(names), dtype=torch.bool)
        unknown = unit(images["test_x"])[~out[as_labels(images["test_y"])]]
        left = tuple(n for n, gone in zip(names, out.tolist(), strict=True) if gone)
        tasks.append(Task(task, whole.names, None, whole.fit_x, whole.fit_y, whole.test_x, unknown, left))
    for task, name in zip(NEAR, ("dtd", "cars", "imagenet"), strict=True):
        data = datasets[name]
        b, fitted, known = data.base, data.fit_y < data.base, data.test_y < data.base
        tasks.append(
            Task(
                task,
                data.names[:b],
                data.names[b:],
                data.fit_x[fitted],
                data.fit_y[fitted],
                data.test_x[known],
                data.test_x[~known],
            )
        )
    return tasks


def flower_names(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Class names by label: from the split file where the features have numbers only."""
    path = folder / "splits" / "split_zhou_OxfordFlowers.json"
    if not path.is_file():
        return names
    split = json.loads(path.read_text(encoding="utf-8"))
    by_label = {int(label): str(name) for part in split.values() for _, label, name in part}
    return tuple(by_label.get(i, name) for i, name in enumerate(names))


def divided(name: str, data: Features, known: list[int], unknown: list[int], hold: int, seed: int = 0) -> Task:
    """A validation task: `hold` fitted images of each known class are tested against all of the unknown ones."""
    draws = torch.Generator().manual_seed(seed)
    fit_x, fit_y, tested = [], [], []
    for number, c in enumerate(known):
        indices = (data.fit_y == c).nonzero()[:, 0]
        indices = indices[torch.randperm(len(indices), generator=draws)]
        tested.append(data.fit_x[indices[:hold]])
        fit_x.append(data.fit_x[indices[hold:]])
        fit_y += [number] * (len(indices) - hold)
    away = torch.isin(data.fit_y, torch.tensor(unknown, dtype=torch.long))
    return Task(
        name,
        data.names[known],
        data.names[unknown],
        torch.cat(fit_x),
        torch.tensor(fit_y),
        torch.cat(tested),
        data.fit_x[away],
    )


def validation_tasks(folder: str | os.PathLike[str]) -> list[Task]:
    """Thirteen tasks among classes that every test task knows: blocks and halves of names, and dataset against dataset.

    ImageNet's first names are animals (birds and the like, then mammals), from number 398 on things.
    """
    datasets = load_features(Path(folder))
    image, dtd, cars = datasets["imagenet"], datasets["dtd"], datasets["cars"]

    def span(*pairs: tuple[int, int]) -> list[int]:
        return [i for low, high in pairs for i in range(low, high)]

    draws = torch.Generator().manual_seed(1)
    half, textures = (torch.randperm(n, generator=draws).tolist() for n in (500, 24))
    tasks = [
        divided("animals|things", image, span((0, 398)), span((398, 500)), 1),
        divided("mammals, things|birds", image, span((151, 500)), span((0, 151)), 1),
        divided("birds, things|mammals", image, span((0, 151), (398, 500)), span((151, 398)), 1),
        divided("imagenet halves", image, half[:250], half[250:], 1),
        divided("dtd halves", dtd, textures[:12], textures[12:], 8),
        divided("dtd other halves", dtd, textures[12:], textures[:12], 8),
        divided("cars first|second", cars, span((0, 49)), span((49, 98)), 4),
        divided("cars second|first", cars, span((49, 98)), span((0, 49)), 4),
    ]
    whole = {
        "imagenet": divided("", image, span((0, 500)), [], 1),
        "dtd": divided("", dtd, span((0, 24)), [], 8),
        "cars": divided("", cars, span((0, 98)), [], 4),
    }
    seen = {name: data.fit_x[data.fit_y < data.base] for name, data in datasets.items()}
    for name, other in (
        ("imagenet", "cars"),
        ("dtd", "imagenet"),
        ("dtd", "cars"),
        ("cars", "imagenet"),
        ("cars", "dtd"),
    ):
        t = whole[name]
        tasks.append(Task(f"{name}|{other}", t.names, None, t.fit_x, t.fit_y, t.known, seen[other]))
    return tasks
