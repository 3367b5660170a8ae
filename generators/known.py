"""What a generator keeps of the known classes: their embeddings and a bank of real image features.

Notation: `N` images, `C` known classes, `D` embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ogenlib.generators.checks import check_rows, unit


class KnownClasses(nn.Module):
    """Unit vectors of the known classes, sorted by class, as buffers.

    Everything is fp32 and of unit length, whatever came in. Buffers `embeddings (C, D)`, `features (N, D)` and
    `labels (N,)` are saved; the statistics are computed from them:

    * `means (C, D)`, `stds (C, D)`: of each class's images (std over n images, 0 for a single one);
    * `lengths (C,)`: length of the mean of *all* the class's images, estimated without bias: unit vectors have
      E|mean of n|² = |mu|² + (1 - |mu|²) / n, so the mean of a few images is too long;
    * `enlarge (C,)`: sqrt(n / (n - 1)), what a residual `x - mean` of n images is multiplied with to be as long as
      `x - mu`; 0 for a single image, which has no residual.

    Args:
        unit_rows: all are of unit length already and are kept bit by bit (reading what was saved).

    Raises:
        ValueError: bad shapes or values, labels out of range, or a class without images.
    """

    embeddings: Tensor
    features: Tensor
    labels: Tensor
    starts: Tensor
    counts: Tensor
    means: Tensor
    stds: Tensor
    lengths: Tensor
    enlarge: Tensor

    def __init__(self, features: Tensor, labels: Tensor, embeddings: Tensor, *, unit_rows: bool = False) -> None:
        super().__init__()
        check_rows("class_embeddings", embeddings)
        check_rows("features", features, embeddings.shape[1])
        check_labels(labels, len(features), len(embeddings))
        labels = labels.detach().to(features.device).long()
        labels, order = labels.sort(stable=True)
        images, classes = features.detach(), embeddings.detach().to(features.device)
        if not unit_rows:
            images, classes = unit(images), unit(classes)
        images = images[order].float()
        self.register_buffer("embeddings", classes.float().clone())
        self.register_buffer("features", images)
        self.register_buffer("labels", labels)

        counts = torch.bincount(labels, minlength=len(embeddings))
        n = counts[:, None].float()
        means = torch.zeros_like(self.embeddings).index_add_(0, labels, images) / n
        squares = torch.zeros_like(means).index_add_(0, labels, (images - means[labels]).square()) / n
        n = n[:, 0]
        several = counts > 1
        lengths = ((n * means.square().sum(-1) - 1) / (n - 1).clamp(min=1)).clamp(min=0).sqrt()
        # A single image says nothing about the spread of its class: take what the other classes say.
        usual = lengths[several].mean() if several.any() else lengths.new_tensor(1.0)
        derived = {
            "starts": counts.cumsum(0) - counts,
            "counts": counts,
            "means": means,
            "stds": squares.sqrt(),
            "lengths": torch.where(several, lengths, usual),
            "enlarge": torch.where(several, (n / (n - 1).clamp(min=1)).sqrt(), 0.0),
        }
        for name, value in derived.items():
            self.register_buffer(name, value, persistent=False)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dim(self) -> int:
        """`D`."""
        return self.embeddings.shape[1]

    def pick(self, classes: Tensor, uniform: Tensor) -> Tensor:
        """Indices in the bank, a random image for each entry of `classes`; `uniform` in [0, 1) has the same shape."""
        counts = self.counts[classes]
        return self.starts[classes] + torch.minimum((uniform * counts).long(), counts - 1)

    def images(self, classes: Tensor, uniform: Tensor) -> Tensor:
        """One random real feature `(..., D)` for each entry `(...)` of `classes`."""
        return self.features[self.pick(classes, uniform)]


def check_labels(labels: Tensor, n_images: int, n_classes: int) -> None:
    """Refuse labels that do not give every image a class and every class an image.

    Raises:
        TypeError: not a tensor.
        ValueError: all else, naming the row or the class.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels is a {type(labels).__name__}; pass torch.as_tensor(labels)")
    if labels.ndim != 1 or len(labels) != n_images:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; one label for each of {n_images} features is needed")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels is {labels.dtype}; class indices are needed: labels.long()")
    wrong = (labels < 0) | (labels >= n_classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"labels[{row}] = {int(labels[row])}; labels are row numbers of class_embeddings, "
            f"0 to {n_classes - 1}; drop the image or add its class"
        )
    empty = (torch.bincount(labels.long(), minlength=n_classes) == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(
            f"{len(empty)} classes have no images, by index: {empty[:5]}; add images or drop "
            "their rows of class_embeddings"
        )
