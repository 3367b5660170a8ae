"""What every method is: a host, that makes the two sides of ``logits = scale * z @ w.T``.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import FeatureBank
from ogenlib.hosts.options import saved_options
from ogenlib.hosts.run_folder import save_run
from ogenlib.towers import ClipLike

DEFAULT_TEMPLATES = ("a photo of a {}.",)


KINDS = ("baseline", "prompt", "adapter", "fine-tuning")  # in the order of tables


@dataclass(frozen=True)
class MethodInfo:
    """What a method is called and where it comes from.

    Attributes:
        name: in options, results and saved runs.
        kind: one of `KINDS`.
        paper: title; `url` and `year` belong to it.
        ogen: whether OGEN can be plugged in (there is something to train).
        title: the name in tables and reports, as the paper spells it; without one `name`, with spaces.
        aliases: what else users type. Letters and digits count, capitals do not; `name` and `title` need no alias.

    Raises:
        ValueError: a kind that there is not, or one string as aliases.
    """

    name: str
    kind: str
    paper: str
    url: str
    year: int
    ogen: bool = True
    title: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of method {self.name!r}: must be one of {', '.join(KINDS)}")
        if isinstance(self.aliases, str):
            raise ValueError(f"aliases={self.aliases!r} of method {self.name!r}: pass a tuple, ({self.aliases!r},)")
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))


@dataclass
class Batch:
    """A training or test batch: pixels, or features that the frozen image tower made earlier.

    Attributes:
        labels: `(B,)` int64 into the host's names.
        features: `(B, D)`, unit length, from a feature bank, or None.
        pixels: `(B, 3, height, width)` preprocessed, or None.
        generator: source of every random draw a loss makes; None only where nothing is drawn.
        total: images of this step over all processes; None where there is one process.
        rows: `(B,)` int64, which images of the training bank (those of the host's names) these are; None in tests.
    """

    labels: Tensor
    features: Tensor | None = None
    pixels: Tensor | None = None
    generator: torch.Generator | None = None
    total: int | None = None
    rows: Tensor | None = None


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """`generator`, or one seeded with 0, so that two builds without one are equal."""
    return torch.Generator().manual_seed(0) if generator is None else generator


class Host(nn.Module):
    """Base of all methods. Subclasses set `info` and write `class_weights` and `losses`.

    The backbone is held outside the module tree: a host's parameters, state dict and teachers contain what
    the method added and never a copy of CLIP.

    Attributes:
        names: class names it is trained on, in label order.
    """

    info: ClassVar[MethodInfo]
    uses_cached_features: ClassVar[bool] = True  # False once a host changes the image side before pooling
    reads_frozen: ClassVar[bool] = False  # True where losses ask for the frozen tower's features of pixels
    training_free: ClassVar[bool] = False  # True where `prepare` is all that training does
    reads_names: ClassVar[bool] = False  # True where training puts names into sentences, whatever `texts` it is given
    unsaved: ClassVar[frozenset[str]] = frozenset()  # options that a saved run is built without
    # These three follow from what a class overrides; a wrapper takes them over from the host inside it.
    own_image_side: ClassVar[bool] = False  # True where no image tower, whatever its tensors, gives the image features
    own_logits: ClassVar[bool] = False  # True where logits are more than scaled cosines
    prepares: ClassVar[bool] = False  # True where `prepare` looks at the training images

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        changed = not cls.uses_cached_features or cls.image_features is not Host.image_features
        cls.own_image_side = changed and cls.merged is Host.merged
        cls.own_logits = cls.logits is not Host.logits
        cls.prepares = cls.prepare is not Host.prepare

    def __init__(self, clip: ClipLike, names: Sequence[str]) -> None:
        super().__init__()
        if isinstance(names, str) or len(names) == 0:
            raise ValueError(f"names={names!r}: pass a non-empty list of class names")
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if list(names).count(n) > 1})
            raise ValueError(f"names holds {twice} more than once; every class needs its own name")
        object.__setattr__(self, "clip", clip)
        self.names = tuple(names)

    clip: ClipLike

    # --- the four verbs -------------------------------------------------------------------------------

    def image_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, D)` from cached features or from pixels."""
        if batch.features is not None:
            return F.normalize(batch.features.float(), dim=-1)
        if batch.pixels is None:
            raise ValueError("the batch holds neither features nor pixels")
        with torch.no_grad():
            return self.clip.encode_image(batch.pixels)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` for any names (default: the training names), or `(B, C, D)` given `z` `(B, D)`."""
        raise NotImplementedError

    def text_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Class weights as directions of names, unit vectors: without what a wrapper adds to them from images."""
        return self.class_weights(names, z=z)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """Named scalar terms whose sum is minimised.

        Args:
            z, w: the batch's image features and the class weights of the training names, where the caller has them
                already (OGEN computes more features and names in one pass).
        """
        z = self.image_features(batch) if z is None else z
        w = self.class_weights(z=z) if w is None else w
        return {"ce": F.cross_entropy(self.logits(z, w), batch.labels)}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter for everything the method trains."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}

    @property
    def inner(self) -> Host:
        """The host without what is wrapped around it: itself, or of a wrapper the host inside."""
        return self

    def around(self, inner: Host) -> Host:
        """The same wrapper, with what it has learned, around another host of the same kind; `inner` without one."""
        return inner

    # --- shared ---------------------------------------------------------------------------------------

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        """`(B, C)` scaled cosines (plus the model's bias, if it has one) of `z` `(B, D)` and the weights.

        A host that scores cached features otherwise (an adapter on them, a cache of them) overrides this one, and
        leaves `image_features` as they are: synthesized features and the zero-shot reference are frozen features too.
        """
        cosines = z @ w.T if w.ndim == 2 else torch.einsum("bd,bcd->bc", z, w)
        bias = self.clip.logit_bias
        scaled = self.clip.logit_scale * cosines
        return scaled if bias is None else scaled + bias

    def config(self) -> dict[str, Any]:
        """JSON-able keyword arguments that rebuild this host (without backbone and names): its options but for those in
        `unsaved`, each from the attribute of the same name, tuples as lists.

        Raises:
            NotImplementedError: there is no such attribute.
        """
        return {name: self._option(name) for name in saved_options(type(self))}

    def _option(self, name: str) -> Any:
        if not hasattr(self, name):
            raise NotImplementedError(
                f"{type(self).__name__} does not say what its option {name!r} was; keep it as self.{name}, name it in "
                "`unsaved`, or write config()"
            )
        value = getattr(self, name)
        return list(value) if isinstance(value, tuple) else value

    @classmethod
    def dataset_options(cls, templates: Sequence[str]) -> dict[str, Any]:
        """Keyword arguments a dataset with these templates suggests; none unless the method says so."""
        return {}

    @classmethod
    def unknown_options(cls, unknown: Sequence[str]) -> dict[str, Any]:
        """Keyword arguments a host wants when names without images will be trained with OGEN; none for most."""
        return {}

    @classmethod
    def ogen_kind(cls) -> str:
        """What OGEN's presets are fitted to: `info.kind`, or ``visual prompt`` for prompts on the image side."""
        return "visual prompt" if cls.info.kind == "prompt" and not cls.uses_cached_features else cls.info.kind

    def reference_templates(self) -> tuple[str, ...]:
        """Templates of the zero-shot classifier that this host starts from or is compared with."""
        return DEFAULT_TEMPLATES

    def train_settings(self) -> dict[str, Any]:
        """Training settings the method's authors use where they differ from `ogenlib.train.config.TrainConfig`."""
        return {}

    def merged(self) -> dict[str, Tensor] | None:
        """Tensors of the open_clip model's own state dict that training replaced, by their names there.

        With them in place, the plain model gives this host's image features. None for hosts that change no
        tensor of the model; a host with prompts or layers of its own on the image side has none either.
        """
        return None

    def checkpointed(self) -> list[Any]:
        """Parts with open_clip's `set_grad_checkpointing` that gradients go through; none where there are no towers."""
        model = getattr(self.clip, "model", None)
        return [] if model is None else [model]

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Called by training once, before the first epoch, with the images of the training names."""

    def on_start(self, epochs: int, steps: int) -> None:
        """Called by training once, after `prepare` and before a checkpoint is read: `steps` in each of the epochs."""

    def training_state(self) -> dict[str, Any]:
        """What continuing a killed training needs besides the state dict, JSON-able but for tensors."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Take back `training_state()`; called after `prepare`."""

    def on_step_end(self) -> None:
        """Called by training after every optimizer step."""

    def on_epoch_end(self, epoch: int, total: int) -> None:
        """Called by training after epoch 1, 2, ..., `total`."""

    def save(self, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
        """Write the trained run (safetensors and JSON) that `ogenlib.Classifier.load` opens."""
        return save_run(self, folder, extra)

    def write_beside(self, folder: Path) -> dict[str, str]:
        """Write what a saved run holds besides the host's tensors; the digests of these files by their names."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where the backbone lies, and with it the host's parameters."""
        return self.clip.device
