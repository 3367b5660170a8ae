"""What every host that changes the image side shares: it reads pixels, and has the frozen tower's features beside.

Notation: `B` images, `D` embedding.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ogenlib.hosts.base import Batch, Host


class PixelHost(Host):
    """Mixin: image features come from pixels, never from a bank of the frozen tower's features.

    Subclasses set `changes`.

    Attributes:
        changes: what it does to the image side, for error messages ("trains the image tower").
    """

    uses_cached_features: ClassVar[bool] = False
    changes: ClassVar[str]

    def pixels_of(self, batch: Batch) -> Tensor:
        """`(B, 3, height, width)` on the host's device.

        Raises:
            ValueError: the batch holds no pixels.
        """
        if batch.pixels is None:
            held = "neither features nor pixels" if batch.features is None else "features of the frozen image tower"
            raise ValueError(
                f"the batch holds {held}; {self.info.name} {self.changes} and needs pixels: train "
                "and evaluate on images, PixelBank.load(clip, images)"
            )
        return batch.pixels.to(self.device)

    def frozen_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, D)` of the same images by the untouched tower: the batch's own `features` if it has any
        (they have to be of the same views), else one more pass without gradients."""
        return Host.image_features(self, batch)
