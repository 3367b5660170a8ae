"""SHIP: CoOp on real images and on features synthesized from class names.

"Improving Zero-Shot Generalization for CLIP with Synthesized Prompts", Wang et al., ICCV 2023.
https://arxiv.org/abs/2307.07397

Reproduced: first a variational autoencoder on the training features (`ship_vae`: its decoder shifts four learned
tokens in front of the class name, the frozen text tower does the rest), 50 epochs of AdamW at 1e-3; then CoOp with
cross-entropy over base and new names, half of it on real and half on synthesized features of new names.
Different: the new names are given (`new_names`), and without any the synthesized features are of the training names;
those of a name are synthesized once and drawn from; a step takes `rows` of them, the released code as many as images;
widths follow the model. CoOp trains with this library's settings, the authors' is SGD 2e-3 for 200 epochs with
batches of 256.
The released code trains CoOp anew after every tenth epoch of the autoencoder and reports the best harmonic mean on the
test images; here nothing is chosen, and the last epoch of each counts.

Notation: `B` images, `C` classes, `D` embedding, `S` synthesized features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.data import FeatureBank
from ogenlib.hosts.base import Batch, MethodInfo
from ogenlib.hosts.coop import CoOp
from ogenlib.hosts.parts.ship_vae import fit_vae, synthesize
from ogenlib.hosts.registry import register
from ogenlib.towers import Backbone

VAE_EPOCHS = 50  # released code
ROWS = 32  # as many as the library's batch holds images
PER_NAME = 64  # this library's choice; the released code synthesizes anew in every step


@register
class SHIP(CoOp):
    """CoOp with synthesized features.

    Args:
        new_names: names without images that are trained on synthesized features.
        vae_epochs: of the autoencoder.
        rows: `S`, synthesized features a step; drawn alike on every process.
        per_name: features synthesized of every name.
        options: those of `CoOp`, without `class_specific`.

    Raises:
        ValueError: a new name that is a training name or given twice, a count below 1, and what `CoOp` raises.
    """

    info = MethodInfo(
        "ship",
        "prompt",
        "Improving Zero-Shot Generalization for CLIP with Synthesized Prompts",
        "https://arxiv.org/abs/2307.07397",
        2023,
        title="SHIP",
    )

    def __init__(
        self,
        clip: Backbone,
        names: Sequence[str],
        context: str | None = "a photo of a",
        *,
        n_context: int | None = None,
        position: str = "end",
        chunk: int | None = None,
        new_names: Sequence[str] = (),
        vae_epochs: int = VAE_EPOCHS,
        rows: int = ROWS,
        per_name: int = PER_NAME,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, context, n_context=n_context, position=position, chunk=chunk, generator=generator)
        if isinstance(new_names, str):
            raise ValueError(f"new_names={new_names!r}: pass a list of names")
        self.new_names = tuple(new_names)
        self.every = (*self.names, *self.new_names)
        twice = sorted({n for n in self.every if self.every.count(n) > 1})
        if twice:
            raise ValueError(f"names and new_names hold {twice[:5]} more than once; new names are those without images")
        for argument, value in (("vae_epochs", vae_epochs), ("rows", rows), ("per_name", per_name)):
            if value < 1:
                raise ValueError(f"{argument}={value}: must be 1 or more")
        self.vae_epochs, self.rows, self.per_name = vae_epochs, rows, per_name
        self._tokens(self.every)  # refuses prompts that do not fit before any training
        # Outside the buffers: a trained host is its context, whatever it was trained on.
        object.__setattr__(self, "pool", None)

    pool: Tensor | None

    @classmethod
    def paper(cls, clip: Backbone, names: Sequence[str], **options: Any) -> SHIP:
        """4 tokens from "a photo of a" (SGD 2e-3, 200 epochs, batches of 256)."""
        return cls(clip, names, **{"context": "a photo of a", **options})

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Train the autoencoder and synthesize the features `(names, per_name, D)`; the same for the same seed."""
        vae = fit_vae(self.clip, data.features, data.labels, self.names, self.vae_epochs, seed)
        draws = torch.Generator().manual_seed(seed)
        object.__setattr__(self, "pool", synthesize(vae, self.new_names or self.names, self.per_name, draws))

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``ce`` and ``synthesized_ce``, half of each, both over training and new names.

        Raises:
            RuntimeError: `prepare` was not called (`ogenlib.fit` does).
        """
        if self.pool is None:
            raise RuntimeError("no features yet; train with ogenlib.fit, or call prepare(bank, epochs, seed)")
        z = self.image_features(batch) if z is None else z
        w = self.class_weights(self.every) if w is None or self.new_names else w
        synthesized, labels = self._drawn(batch.generator)
        real = F.cross_entropy(self.logits(z, w), batch.labels)
        return {"ce": real / 2, "synthesized_ce": F.cross_entropy(self.logits(synthesized, w), labels) / 2}

    def _drawn(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Features `(S, D)` and labels `(S,)` into all names; the whole pool without a generator."""
        assert self.pool is not None
        first = len(self.names) if self.new_names else 0
        names, per_name = self.pool.shape[:2]
        if generator is None:
            which = torch.arange(names * per_name)
        else:
            which = torch.randint(names * per_name, (self.rows,), generator=generator)
        which = which.to(self.pool.device)
        return self.pool.flatten(0, 1)[which], first + which // per_name

    @classmethod
    def unknown_options(cls, unknown: Sequence[str]) -> dict[str, Any]:
        """The unknown names are the new ones."""
        return {"new_names": list(unknown)}
