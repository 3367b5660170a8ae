"""Linear residual adapters in the blocks of a transformer, beside its frozen layers or melted into them.

An adapter stands behind a linear layer and adds ``x @ P`` to its output ``x``. Nothing curves between the two, so the
layer with other numbers in it does the same: ``W' = (I + P)^T W`` and ``b' = b (I + P)`` in torch's layout, where
``x = h W^T + b``. There is one behind attention (its output projection is the layer) and one behind the MLP (its
second layer) in every block; where a block scales its branches (LayerScale), the adapter stands before the scaling.
A melted layer needs a gradient of its own size in every training step; beside it, the adapter alone does.

Notation: `W` width, `R` rank, `N` adapters of a tower, two a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ogenlib.hosts.base import seeded
from ogenlib.towers import Backbone
from ogenlib.towers.native import NativeTextTower

LAYERS = {"attn": "attn.out_proj", "mlp": "mlp.c_proj"}  # an adapter's place in a block: the layer before it


class ResidualAdapter(nn.Module):
    """``P``: one `(W, W)` matrix that starts at zero, or ``down @ up`` of rank `R`, of which only `up` does.

    With both factors at zero neither would ever get a gradient. `down` is normal with variance 1/W: ours.

    Args:
        rank: `R`; None for the full matrix.
        generator: of the start of `down`.

    Raises:
        ValueError: a rank below 1 or of `W` and more.
    """

    def __init__(
        self, width: int, rank: int | None, *, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        if rank is not None and not 1 <= rank < width:
            raise ValueError(f"rank={rank}: must be 1 to {width - 1} in a tower of width {width}; None is full rank")
        self.rank = rank
        if rank is None:
            self.weight = nn.Parameter(torch.zeros(width, width, device=device))
        else:
            self.down = nn.Parameter((torch.randn(width, rank, generator=generator) / width**0.5).to(device))
            self.up = nn.Parameter(torch.zeros(rank, width, device=device))

    def matrix(self) -> Tensor:
        """``P`` `(W, W)`."""
        return self.weight if self.rank is None else self.down @ self.up

    def forward(self, x: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        """``x + factor * x @ P`` of `x` `(..., W)`, in its dtype."""
        flat = x.reshape(-1, x.shape[-1])
        if self.rank is None:
            inner, last = flat, self.weight
        else:
            inner, last = flat @ self.down.to(x.dtype), self.up
        return torch.addmm(flat, inner, (factor * last).to(x.dtype)).view(x.shape)

    def after(self, layer: Tensor) -> Tensor:
        """``P^T @ layer`` for a layer's weight `(W, inputs)` or its bias `(W,)`."""
        return self.weight.T @ layer if self.rank is None else self.up.T @ (self.down.T @ layer)


class TowerAdapters(nn.Module):
    """The adapters of one tower.

    Args:
        model: the open_clip model, held outside the module tree.
        blocks: of the tower, first to last.
        tower: what to call it in errors.
        rank, generator: as for `ResidualAdapter`.

    Attributes:
        layers: names of the model's layers that the adapters melt into, in their order.

    Raises:
        ValueError: blocks without the two layers (named), or a rank that does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        tower: str,
        *,
        rank: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        source = seeded(generator)
        names = {module: name for name, module in model.named_modules()}
        frozen: list[nn.Linear] = []
        branches: list[nn.Module] = []
        self.layers: tuple[str, ...] = ()
        self.resblocks = nn.ModuleList()
        for block in blocks:
            adapters = nn.ModuleDict()
            for place, path in LAYERS.items():
                layer = _layer(block, path)
                if layer is None:
                    raise ValueError(
                        f"{tower} has blocks {type(block).__name__} without {path}: R-Adapter needs the blocks of "
                        "open_clip's own VisionTransformer and text transformer (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
                    )
                width = layer.out_features
                adapters[place] = ResidualAdapter(width, rank, generator=source, device=layer.weight.device)
                frozen.append(layer)
                branches.append(block.get_submodule(place))
                self.layers += (names[layer],)
            self.resblocks.append(adapters)
        object.__setattr__(self, "_frozen", tuple(frozen))
        object.__setattr__(self, "_branches", tuple(branches))

    _frozen: tuple[nn.Linear, ...]
    _branches: tuple[nn.Module, ...]

    def __len__(self) -> int:
        """`N`."""
        return len(self.layers)

    def adapters(self) -> list[ResidualAdapter]:
        """All `N`, in the order of `layers`."""
        return [block[place] for block in self.resblocks for place in LAYERS]  # type: ignore[index]

    @contextmanager
    def beside(self, scale: Tensor | float = 1.0, shares: Tensor | None = None) -> Iterator[None]:
        """Inside, the model's blocks have the adapters behind their attention and their MLP.

        For training steps: what `merged` gives is the same but for rounding, and takes a gradient of the whole layer.
        Not where activations are recomputed (`recomputes`): the second forward pass would run outside of the block.

        Args:
            scale, shares: as for `merged`.
        """
        with ExitStack() as hooks:
            for i, (branch, adapter) in enumerate(zip(self._branches, self.adapters(), strict=True)):
                factor = scale if shares is None else scale * shares[i]
                hooks.callback(branch.register_forward_hook(partial(_behind, adapter, factor)).remove)
            yield

    def merged(self, scale: Tensor | float = 1.0, shares: Tensor | None = None) -> dict[str, Tensor]:
        """Weights and biases of `layers` with the adapters in them, by their names in the model; in its dtypes.

        Computed in fp32 whatever the step's precision: the change is small beside the layer.

        Args:
            scale: every adapter is multiplied by it.
            shares: `(N,)`, one more factor for each adapter.
        """
        tensors: dict[str, Tensor] = {}
        parts: Any = zip(self.layers, self._frozen, self.adapters(), strict=True)
        for i, (name, layer, adapter) in enumerate(parts):
            factor = scale if shares is None else scale * shares[i]
            with torch.autocast(layer.weight.device.type, enabled=False):
                for kind in ("weight", "bias"):
                    own = getattr(layer, kind)
                    if own is not None:
                        changed = own.float() + factor * adapter.after(own.float())
                        tensors[f"{name}.{kind}"] = changed.to(own.dtype)
        return tensors


def image_blocks(clip: Backbone) -> Sequence[nn.Module]:
    """Blocks of the image tower.

    Raises:
        ValueError: it is not open_clip's own vision transformer, named.
    """
    visual = clip.image.visual
    if not isinstance(visual, VisionTransformer):
        trunk = getattr(visual, "trunk", None)
        around = "" if trunk is None else f" around {type(trunk).__name__}"
        raise ValueError(
            f"image tower {type(visual).__name__}{around} of {clip.name!r} takes no residual adapters: R-Adapter needs "
            "open_clip's own VisionTransformer (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
        )
    return list(visual.transformer.resblocks)


def text_blocks(clip: Backbone) -> Sequence[nn.Module]:
    """Blocks of the text tower.

    Raises:
        ValueError: it is not open_clip's own text transformer, named.
    """
    if not isinstance(clip.text, NativeTextTower):
        module = getattr(clip.model, "text", clip.model)
        raise ValueError(
            f"text tower {type(module).__name__} of {clip.name!r} takes no residual adapters: R-Adapter needs "
            "open_clip's own text transformer (the CLIP and TextTransformer classes)"
        )
    return list(clip.text.blocks)


def _behind(adapter: ResidualAdapter, factor: Tensor | float, _: nn.Module, __: Any, out: Any) -> Any:
    """A branch's output with the adapter's; attention gives its weights along."""
    return (adapter(out[0], factor), *out[1:]) if isinstance(out, tuple) else adapter(out, factor)


def _layer(block: nn.Module, path: str) -> nn.Linear | None:
    try:
        layer = block.get_submodule(path)
    except AttributeError:
        return None
    return layer if isinstance(layer, nn.Linear) else None
