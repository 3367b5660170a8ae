"""The class-conditional generator: image features for a class from its name's embedding.

Notation: `B` features, `U` unknown classes, `C` known classes, `K` neighbours, `D` embedding, `R` random numbers a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ogenlib.generators.checks import check_at_least, check_choice, check_rows
from ogenlib.generators.known import KnownClasses
from ogenlib.generators.synthesis import synthesize_chunks

SCHEMA = "ogenlib.generator/1"
SPREADS = ("residual", "none")
BANK = "known."  # of the names of the tensors of `known`


class ClassConditionalGenerator(nn.Module):
    """Base of all variants. A variant writes `forward`; `fit_generator` trains it and gives it `known`.

    Args:
        dim: `D`, of image features and class embeddings.
        k: neighbours `K` (3 as in the released code).
        heads: attention heads (4 as in the released code), any number for any `dim`.
        dropout: on attention weights, in training only (0.1 as in the released code).
        hidden: width of the variant's MLP, `dim` if None (as in the released code).
        spread: ``residual`` puts residuals of real images around one mean per class, ``none`` returns the
            forward pass of random images.

    Attributes:
        known: the known classes and their images, or None before training.
        history: records ``{"iteration", "loss"}`` of the training.

    Raises:
        ValueError: a setting out of range, named.
    """

    variant: ClassVar[str] = ""
    # What fit_generator uses unless told otherwise.
    neighbours_by: ClassVar[str] = "text"
    held_out: ClassVar[float] = 0.25

    def __init__(
        self,
        dim: int,
        *,
        k: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        hidden: int | None = None,
        spread: str = "residual",
    ) -> None:
        super().__init__()
        check_at_least("dim", dim, 2)
        for name, value in (("k", k), ("heads", heads), ("hidden", dim if hidden is None else hidden)):
            check_at_least(name, value, 1)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be 0 or more and below 1")
        check_choice("spread", spread, SPREADS)
        self.dim, self.k, self.heads, self.dropout = dim, k, heads, dropout
        self.hidden, self.spread = dim if hidden is None else hidden, spread
        self.known: KnownClasses | None = None
        self.history: list[dict[str, float]] = []
        self.training_settings: dict[str, Any] = {}

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`(B, D)`, of no particular length, from an unknown class's embedding and its neighbours.

        Args:
            query: embeddings `(B, D)` of unknown classes, unit vectors.
            keys: embeddings `(B, K, D)` of their known neighbours, unit vectors.
            values: an image feature `(B, K, D)` of each neighbour.
        """
        raise NotImplementedError(f"{type(self).__name__} must write forward(query, keys, values)")

    def training_values(self, neighbours: Tensor, draws: torch.Generator) -> Tensor:
        """Values `(B, K, D)` for neighbours `(B, K)` in training: one random real image of each."""
        known = self.require_known()
        uniform = torch.rand(neighbours.shape, generator=draws).to(neighbours.device)
        return known.images(neighbours, uniform)

    def training_loss(self, query: Tensor, keys: Tensor, values: Tensor, target: Tensor) -> Tensor:
        """Mean squared distance to the target features (the released code's 512 · MSE is this sum over D)."""
        return (self(query, keys, values) - target).square().sum(dim=-1).mean()

    @property
    def n_random(self) -> int:
        """`R` of `sample`."""
        return self.k

    def sample(self, query: Tensor, known_embeddings: Tensor, neighbours: Tensor, uniform: Tensor) -> Tensor:
        """Features `(B, D)` from random images of the neighbours `(B, K)`; `uniform` is `(B, R)`."""
        return self(query, known_embeddings[neighbours], self.require_known().images(neighbours, uniform))

    def require_known(self) -> KnownClasses:
        """`known`.

        Raises:
            ValueError: the generator was not fitted.
        """
        if self.known is None:
            raise ValueError(
                f"this {type(self).__name__} has no known classes; make it with "
                f"fit_generator(features, labels, class_embeddings, variant={self.variant!r})"
            )
        return self.known

    def synthesize(self, class_embeddings: Tensor, n_per_class: int = 16, **options: Any) -> Tensor:
        """Unit features `(U * n_per_class, D)`, class by class; options as in `iter_synthesize`."""
        return torch.cat(list(self.iter_synthesize(class_embeddings, n_per_class, **options)))

    def iter_synthesize(
        self,
        class_embeddings: Tensor,
        n_per_class: int = 16,
        *,
        generator: torch.Generator | None = None,
        chunk: int = 65536,
        grad: bool = False,
        known_embeddings: Tensor | None = None,
        neighbours: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """The features of `synthesize`, at most `chunk` at a time, so that a million fit in bounded memory.

        Dropout is off, whatever the mode of the module.

        Args:
            class_embeddings: `(U, D)`, any length.
            generator: of the random images; torch's default one if None. One number is taken from it, which
                starts a CPU generator: devices and chunks draw the same.
            chunk: features at a time; the draws do not depend on it.
            grad: keep gradients, to the class embeddings and the parameters.
            known_embeddings: `(C, D)` in place of those of the training, e.g. of a prompt that has moved on.
            neighbours: indices `(U, K)` of known classes, in place of the nearest by text.

        Raises:
            ValueError: not fitted, bad shapes or values, `n_per_class` or `chunk` below 1.
        """
        known = self.require_known()
        check_rows("class_embeddings", class_embeddings, self.dim)
        check_at_least("n_per_class", n_per_class, 1)
        check_at_least("chunk", chunk, 1)
        if known_embeddings is not None:
            check_rows("known_embeddings", known_embeddings, self.dim)
            if len(known_embeddings) != len(known):
                raise ValueError(
                    f"known_embeddings has {len(known_embeddings)} rows; pass one for each of the {len(known)} "
                    "classes of the training, in their order"
                )
        if neighbours is not None:
            expected = (len(class_embeddings), self.k)
            if tuple(neighbours.shape) != expected or neighbours.is_floating_point():
                raise ValueError(
                    f"neighbours is {neighbours.dtype} {tuple(neighbours.shape)}; indices of shape {expected} are "
                    f"needed: class_neighbours(new, known, k={self.k})[0]"
                )
            if neighbours.min() < 0 or neighbours.max() >= len(known):
                raise ValueError(f"neighbours must be between 0 and {len(known) - 1}: the known classes")
        return synthesize_chunks(
            self, class_embeddings, n_per_class, generator, chunk, grad, known_embeddings, neighbours
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {
            "dim": self.dim,
            "k": self.k,
            "heads": self.heads,
            "dropout": self.dropout,
            "hidden": self.hidden,
            "spread": self.spread,
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors (contiguous, none shared: ready for safetensors) and JSON-able settings. Writes no file."""
        tensors = {name: value.detach().clone().contiguous() for name, value in self.state_dict().items()}
        settings = {
            "schema": SCHEMA,
            "variant": self.variant,
            "config": self.config(),
            "training": dict(self.training_settings),
            "history": [dict(record) for record in self.history],
        }
        return tensors, settings

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], settings: dict[str, Any]) -> ClassConditionalGenerator:
        """The generator whose `state()` this is, in eval mode; synthesizes the same features.

        Raises:
            ValueError: other settings than `state()` makes, an unknown variant, or tensors that do not fit.
        """
        if settings.get("schema") != SCHEMA:
            raise ValueError(f"schema {settings.get('schema')!r}: these settings are not from state() ({SCHEMA!r})")
        if missing := {"variant", "config", "history", "training"} - settings.keys():
            raise ValueError(f"settings lack {sorted(missing)}; pass all that state() gave")
        try:
            generator = _built(settings["variant"], settings["config"], tensors)
            generator.load_state_dict(tensors)
        except (TypeError, RuntimeError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"these are not from state() of a {settings['variant']} generator: {reason}") from error
        generator.history = [dict(record) for record in settings["history"]]
        generator.training_settings = dict(settings["training"])
        return generator.eval()


def _built(variant: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> ClassConditionalGenerator:
    """A new generator of these settings, with the bank of these tensors; nothing larger than they are is made.

    Raises:
        ValueError, TypeError, RuntimeError, OverflowError: settings or tensors that are not from `state()`.
    """
    kind = variant_class(variant)
    with torch.device("meta"):  # takes no memory, whatever sizes the settings ask for
        expected = {name: value.shape for name, value in kind(**config).state_dict().items()}
    shapes = {name: value.shape for name, value in tensors.items() if not name.startswith(BANK)}
    if wrong := sorted({name for name, _ in expected.items() ^ shapes.items()}):
        raise ValueError(f"the tensors are not those of a {variant} generator of these settings: {', '.join(wrong)}")
    generator = kind(**config)
    bank = {name[len(BANK) :]: value for name, value in tensors.items() if name.startswith(BANK)}
    if bank:
        if missing := {"features", "labels", "embeddings"} - bank.keys():
            raise ValueError(f"tensors lack {sorted(BANK + m for m in missing)}; pass all that state() gave")
        check_rows(f"{BANK}embeddings", bank["embeddings"], generator.dim)
        generator.known = KnownClasses(bank["features"], bank["labels"], bank["embeddings"], unit_rows=True)
        if not torch.equal(generator.known.labels, bank["labels"].long()) or generator.k > len(generator.known):
            raise ValueError(f"the bank of {len(generator.known)} classes is not sorted by class, or has fewer than k")
    return generator


def list_variants() -> tuple[str, ...]:
    """Names that `fit_generator(variant=...)` takes, sorted."""
    return tuple(sorted(_variants()))


def variant_class(variant: str) -> type[ClassConditionalGenerator]:
    """The class of a variant's name.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    check_choice("variant", variant, list_variants())
    return _variants()[variant]


def _variants() -> dict[str, type[ClassConditionalGenerator]]:
    classes: dict[str, type[ClassConditionalGenerator]] = {}
    waiting = list(ClassConditionalGenerator.__subclasses__())
    while waiting:
        each = waiting.pop(0)
        waiting += each.__subclasses__()
        if "variant" in vars(each):
            classes.setdefault(each.variant, each)
    return classes
