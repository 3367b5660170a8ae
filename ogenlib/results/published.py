"""Published accuracies to print beside one's own: those read in the source itself, each with where it stands.

All are of CLIP ViT-B/16 (OpenAI's weights) trained with 16 images of a class, in percent. Numbers that are only
recalled, or cells that contradict the averages of their own table (so KgCoOp's and PromptSRC's by dataset), are not
here. Harmonic means and averages are worked out from the cells, never copied.

The functions give rows to print beside results on the datasets `tested`, with their average where it can be formed; for
what has no published counterpart here there are none. A row has dataset, method, base, new, H (None for what is not
published), tag, source and setting.

`CITE`: "Fully Fine-tuned CLIP Models are Efficient Few-Shot Learners", https://arxiv.org/abs/2407.04003, table 1.
`RMA`: "RMAdapter", AAAI 2026, tables 1 (base-to-new), 2 (cross-dataset) and 3 (domain generalization). Both re-report
other papers' numbers beside their own.
"""

from __future__ import annotations

from collections.abc import Iterable

from ogenlib.data import COOP11
from ogenlib.results.tables import AVERAGE, h_of
from ogenlib.results.types import PublishedRow

SETTING = "CLIP ViT-B/16, 16 images a class"
SOURCES = {
    "V CITE": "CLIP-CITE (arXiv 2407.04003), table 1",
    "V RMA": "RMAdapter (AAAI 2026), table 1",
    "V RMA Tables 2-3": "RMAdapter (AAAI 2026), tables 2 and 3",
}
# In the order of COOP11: base/new of each dataset.
BASE_TO_NEW = {
    "CLIP": ("V CITE", "72.43/68.14 96.84/94.00 91.17/97.26 63.37/74.89 72.08/77.80 90.10/91.22 27.19/36.29 "
                       "69.36/75.35 53.24/59.90 56.48/64.05 70.53/77.50"),
    "CoOp": ("V CITE", "76.47/67.88 98.00/89.81 93.67/95.29 78.12/60.40 97.60/59.67 88.33/82.26 40.44/22.30 "
                       "80.60/65.89 79.44/41.18 92.19/54.74 84.69/56.05"),
    "CoCoOp": ("V CITE", "75.98/70.43 97.96/93.81 95.20/97.69 70.49/73.59 94.87/71.75 90.70/91.29 33.41/23.71 "
                         "79.74/76.86 77.01/56.00 87.49/60.04 82.33/73.45"),
    "MaPLe": ("V CITE", "76.66/70.54 97.74/94.36 95.43/97.76 72.94/74.00 95.92/72.46 90.71/92.05 37.44/35.61 "
                        "80.82/78.70 80.36/59.18 94.07/73.23 83.00/78.66"),
    "CoPrompt": ("V RMA", "77.67/71.27 98.27/94.90 95.67/98.10 76.97/74.40 97.27/76.60 90.73/92.07 40.20/39.33 "
                          "82.63/80.03 83.13/64.73 94.60/78.57 86.90/79.57"),
    "CLIP-CITE": ("V CITE", "78.44/71.07 98.82/94.28 96.01/97.95 82.83/74.51 95.98/76.45 90.81/91.55 47.26/38.37 "
                            "82.30/79.40 84.26/64.54 95.61/80.59 87.56/79.01"),
}  # fmt: skip
# Trained on all of ImageNet: ImageNet, ImageNet-V2, -Sketch, -A, -R; and the mean of ten other datasets, as printed.
SHIFTS = ("imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
FROM_IMAGENET: dict[str, tuple[tuple[float, ...], float | None]] = {
    "CLIP": ((66.73, 60.83, 46.15, 47.77, 73.96), None),
    "CoOp": ((71.51, 64.20, 47.99, 49.71, 75.21), 63.88),
    "CoCoOp": ((71.02, 64.07, 48.75, 50.63, 76.18), 65.74),
    "KgCoOp": ((71.20, 64.10, 48.97, 50.69, 76.70), None),
    "MaPLe": ((70.72, 64.07, 49.15, 50.90, 76.98), 66.30),
    "PromptSRC": ((71.27, 64.35, 49.55, 50.90, 77.80), 65.81),
    "MMA": ((71.00, 64.33, 49.13, 51.12, 77.32), 66.61),
    "CoPrompt": ((70.80, 64.25, 49.43, 50.50, 77.51), 67.00),
    "RMAdapter": ((71.37, 64.45, 49.50, 51.21, 77.70), 67.56),
}


def _datasets(tested: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(tested) if name != AVERAGE]


def _row(dataset: str, method: str, base: float | None, new: float | None, tag: str) -> PublishedRow:
    return {
        "dataset": dataset,
        "method": method,
        "base": base,
        "new": new,
        "H": h_of(base, new),
        "tag": tag,
        "source": SOURCES[tag],
        "setting": SETTING,
    }


def published_halves(trained: str, tested: Iterable[str]) -> list[PublishedRow]:
    """Of base and new names of each dataset; `trained` is the suite that they are of, whichever."""
    rows, datasets = [], _datasets(tested)
    for method, (tag, text) in BASE_TO_NEW.items():
        cells = dict(zip(COOP11, ([float(x) for x in cell.split("/")] for cell in text.split()), strict=True))
        rows += [_row(name, method, cells[name][0], cells[name][1], tag) for name in datasets if name in cells]
        if len(datasets) > 1 and all(name in cells for name in datasets):
            base, new = (sum(cells[name][side] for name in datasets) / len(datasets) for side in (0, 1))
            rows.append(_row(AVERAGE, method, base, new, tag))
    return rows


def published_shifts(trained: str, tested: Iterable[str]) -> list[PublishedRow]:
    """Of ImageNet's variants, trained on ImageNet."""
    rows: list[PublishedRow] = []
    datasets, tag = _datasets(tested), "V RMA Tables 2-3"
    if trained != SHIFTS[0]:
        return rows
    for method, (cells, _) in FROM_IMAGENET.items():
        accuracy = dict(zip(SHIFTS, cells, strict=True))
        rows += [
            _row(name, method, cells[0], None if name == "imagenet" else accuracy[name], tag)
            for name in datasets
            if name in accuracy
        ]
        targets = [name for name in datasets if name != "imagenet"]
        if len(targets) > 1 and all(name in accuracy for name in targets):
            rows.append(_row(AVERAGE, method, cells[0], sum(accuracy[t] for t in targets) / len(targets), tag))
    return rows


def published_transfers(trained: str, tested: Iterable[str]) -> list[PublishedRow]:
    """From ImageNet, the printed mean of all ten targets; there are no cells to average over fewer."""
    if trained != SHIFTS[0] or set(_datasets(tested)) != set(COOP11):
        return []
    return [
        _row(AVERAGE, method, cells[0], mean, "V RMA Tables 2-3")
        for method, (cells, mean) in FROM_IMAGENET.items()
        if mean is not None
    ]
