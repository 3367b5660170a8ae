"""Features of image patches instead of whole images, by a host whose image side is the model's own tower.

What open-vocabulary segmentation starts from: each patch in the space of the class weights. Segmentation itself, and
whether a host makes it better, is not measured in this library.

Notation: `B` images, `D` embedding, `W` image width, `(h, w)` patches.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from ogenlib.hosts import Host
from ogenlib.towers import Backbone
from ogenlib.towers.replaced import call_replaced


def dense_features(host: Host, pixels: Tensor, *, block: int = -1, project: bool = True) -> Tensor:
    """Maps `(B, D, h, w)`, unit vectors over `D`: the patch tokens behind a block, by `forward_intermediates`.

    The host's merged tensors are in the tower (R-Adapter's adapters, a fine-tuned tower); names whose weights are
    ``host.class_weights(names)`` are scored by ``torch.einsum("bdhw,cd->bchw", maps, weights)``. A patch goes through
    the norm and the projection that CLIP trained for its pooled token, as is usual; attention is not changed.
    No gradient reaches what the host trains.

    Args:
        pixels: `(B, 3, height, width)`, preprocessed.
        block: number of the block, from 0, or from the end with a minus.
        project: False gives the tokens as they leave the block, `(B, W, h, w)`, not normalised.

    Raises:
        ValueError: a host with an image side of its own, a tower other than open_clip's own vision transformer (named),
            a block it does not have, or pixels of another size.
    """
    inner = host.inner
    if inner.own_image_side:
        raise ValueError(
            f"{inner.info.name} has prompts or layers of its own on the image side; dense features need a host that "
            "leaves the image tower alone or replaces its tensors (Host.merged)"
        )
    clip = inner.clip
    visual: Any = clip.image.visual
    if not isinstance(clip, Backbone) or not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"image tower {type(visual).__name__} gives no patch tokens here; load a model with open_clip's own "
            "VisionTransformer (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
        )
    blocks = len(visual.transformer.resblocks)
    if not -blocks <= block < blocks:
        raise ValueError(f"block={block}: this tower has {blocks} blocks, 0 to {blocks - 1}, or -{blocks} to -1")
    clip.image.check_pixels(pixels)

    def maps() -> Tensor:
        inside = visual.forward_intermediates(
            pixels.to(clip.device, clip.image.dtype),
            indices=[block % blocks],
            stop_early=True,
            normalize_intermediates=project,
            intermediates_only=True,
        )
        (tokens,) = inside["image_intermediates"]
        if not project:
            return tokens.float()
        if visual.proj is not None:
            tokens = (tokens.movedim(1, -1) @ visual.proj).movedim(-1, 1)
        return F.normalize(tokens.float(), dim=1)

    merged = {name: tensor for name, tensor in (inner.merged() or {}).items() if name.startswith("visual.")}
    return call_replaced(clip.model, merged, maps)
