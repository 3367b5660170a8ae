"""OGENDetector: is an image of a known class or of none, from names, synthesized features and a few images.

This library's own; the generator and the idea of synthesized unknown classes are those of "Overcoming the Pitfalls of
Vision-Language Model Finetuning for OOD Generalization", Zang et al., ICLR 2024, https://arxiv.org/abs/2401.15914.
The paper has no detector. docs/ood.md has the measurements that chose this score, and what was tried besides.

Notation: `B` images, `N` fitted images, `C` classes, `U` other names, `D` embedding, `E` columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_ood.api import DetectorInfo, Paper, Task
from torch import Tensor
from typing_extensions import Self

from ogenlib.detect.base import ChunkedDetector, Encoder, unit_rows
from ogenlib.detect.boundary import Plan, learn
from ogenlib.detect.evidence import Evidence, Means
from ogenlib.detect.images import Images
from ogenlib.generators import ClassConditionalGenerator

if TYPE_CHECKING:
    from ogenlib.detect.logits import OGENLogitsDetector

NEGATIVES = ("held-out", "synthesized", "both")


class OGENDetector(ChunkedDetector):
    """Scores `(B,)` from class names alone, or with a few images of the classes, or with names of other classes.

    Without images nothing has to be fitted. `fit` or `fit_features` with images of the known classes (four of each
    are enough; two at least) adds class means and learns the boundary from them. Settings that are changed
    afterwards, as `GridSearch` does, take effect at the next prediction.

    Args:
        encoder: inputs -> features `(B, D)` (`ImageEncoder(clip)`), or None where features are passed.
        generator: a fitted generator of image features, which then makes the pseudo-unknown ones; None does without.
        class_embeddings: `(C, D)` of the known names, any length.
        unknown_embeddings: `(U, D)` of names that are not among the known ones, if there are candidates.
        temperature: of the soft maximum over names; 0.01 is CLIP's own (1 / logit scale).
        image_temperature: over class means, 0.02.
        n_synth: features synthesized from a name, where any are, 4; few names get more.
        negatives: what plays unknown besides images: ``held-out`` images of known classes, ``synthesized`` features of
            their names, or ``both``. None: both with a generator, held-out without. Names only always synthesizes.
        requires_fit: refuse to predict before images were fitted (and let `GridSearch` fit).
        repeats: random divisions of the classes, 4.
        shrink: added to the correlations of the evidence, 0.1.
        spread: without generator and images, how far features lie from their name: 1.5 differences of names.
        seed: of the divisions and of the synthesized features.

    The defaults were chosen on validation tasks made of known classes only.

    Raises:
        TypeError: not tensors, or a generator that is none.
        ValueError: shapes that do not fit, a setting out of range, ``synthesized`` without a generator.
    """

    info = DetectorInfo(
        tasks=frozenset({Task.CLASSIFICATION}),
        paper=Paper(
            title="Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization",
            venue="ICLR",
            year=2024,
            url="https://arxiv.org/abs/2401.15914",
            code="https://github.com/apple/ml-ogen",
        ),
        ai_coded=True,
    )
    requires_fit = False
    hyperparameter_space = {  # noqa: RUF012  the base class declares it as an instance variable
        "temperature": [0.005, 0.01, 0.02],
        "image_temperature": [0.01, 0.02, 0.05],
        "n_synth": [4, 16],
    }

    def __init__(
        self,
        encoder: Encoder | None,
        generator: ClassConditionalGenerator | None = None,
        class_embeddings: Tensor | None = None,
        unknown_embeddings: Tensor | None = None,
        *,
        temperature: float = 0.01,
        image_temperature: float = 0.02,
        n_synth: int = 4,
        negatives: str | None = None,
        requires_fit: bool = False,
        repeats: int = 4,
        shrink: float = 0.1,
        spread: float = 1.5,
        seed: int = 0,
    ) -> None:
        if class_embeddings is None:
            raise TypeError("class_embeddings is missing; pass OGENDetector(encoder, class_embeddings=rows)")
        super().__init__(encoder, class_embeddings)
        if generator is not None and not isinstance(generator, ClassConditionalGenerator):
            raise TypeError(
                f"generator is a {type(generator).__name__}; make one with "
                "ogenlib.generators.fit_generator, or pass class_embeddings by name"
            )
        dim = self.class_embeddings.shape[1]
        if generator is not None and generator.dim != dim:
            raise ValueError(f"the generator makes {generator.dim} dimensions, the class embeddings have {dim}")
        self.generator = generator
        self.unknown_embeddings = self._others(unknown_embeddings, dim)
        if negatives is not None and negatives not in NEGATIVES:
            raise ValueError(f"negatives={negatives!r}: must be one of {', '.join(NEGATIVES)}, or None")
        if negatives in ("synthesized", "both") and generator is None:
            raise ValueError(f"negatives={negatives!r} needs a generator: pass generator=fit_generator(z, y, rows)")
        self.negatives = negatives or ("held-out" if generator is None else "both")
        self.temperature, self.image_temperature, self.n_synth = temperature, image_temperature, n_synth
        self.repeats, self.shrink, self.spread, self.seed = repeats, shrink, spread, seed
        self.requires_fit = requires_fit
        # Fields of `Images`; `to` moves tuples and would not look into a dataclass.
        self._images: tuple[Tensor, Tensor, Tensor] | None = None
        # What was learned, and the settings it was learned with.
        self._learned: dict[str, Tensor] = {}
        self._learned_with: Plan | None = None
        self._plan()

    def _others(self, embeddings: Tensor | None, dim: int) -> Tensor | None:
        others = None if embeddings is None else unit_rows("unknown_embeddings", embeddings, dim)
        return others.to(self.class_embeddings.device) if others is not None and len(others) else None

    def _plan(self) -> Plan:
        """The settings, checked: attributes may have been set by hand."""
        for name in ("temperature", "image_temperature"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0; CLIP's own is 0.01")
        for name in ("n_synth", "repeats"):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be a whole number of 1 or more")
        for name in ("shrink", "spread"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more")
        return Plan(
            self.temperature,
            self.image_temperature,
            int(self.n_synth),
            self.negatives,
            int(self.repeats),
            self.shrink,
            self.spread,
            self.seed,
        )

    def set_hyperparameters(self, **values: Any) -> Self:
        """Set some of `hyperparameter_space`; nothing is set if a value is refused.

        Raises:
            ValueError: an unknown name, or a value out of range.
        """
        before = {name: getattr(self, name) for name in values if hasattr(self, name)}
        try:
            super().set_hyperparameters(**values)
            self._plan()
        except ValueError:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    # --- fitting ---------------------------------------------------------------------------------------

    @property
    def fitted(self) -> bool:
        """Whether images of the known classes were given; without them names alone decide."""
        return self._images is not None

    @torch.no_grad()
    def fit_features(self, x: Tensor, y: Tensor) -> Self:
        """Take images of the known classes: features `(N, D)` and labels `(N,)`; images with `y < 0` are ignored.

        Classes may lack images. What was fitted before is forgotten. `x` itself is kept, for settings that change,
        and not copied, so memory does not grow with `N`: write nothing else into it.

        Raises:
            TypeError, ValueError: not features and labels that fit the class embeddings, or none of a known class.
        """
        classes, dim = self.class_embeddings.shape
        images = Images.known(x, y, classes, dim, self.class_embeddings.device)
        self._images = (images.rows, images.places, images.labels)
        self._learned_with = None
        self.ready()
        return self

    @torch.no_grad()
    def ready(self) -> None:
        """Learn the boundary if that was not done with the present settings."""
        plan = self._plan()
        if self._learned_with == plan:
            return
        images = None if self._images is None else Images(*self._images)
        with torch.autocast(device_type=self.class_embeddings.device.type, enabled=False):
            evidence, weights = learn(self.class_embeddings, self.unknown_embeddings, images, self.generator, plan)
        self._learned = {"weights": weights}
        if evidence.means is not None:
            self._learned |= {"centre": evidence.means.centre, "directions": evidence.means.directions}
        self._learned_with = plan

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each column of evidence; a score is minus their weighted sum."""
        self.ready()
        return dict(zip(self.evidence.columns, self._learned["weights"].tolist(), strict=True))

    @property
    def evidence(self) -> Evidence:
        """What is weighed, for the present settings."""
        self.ready()
        means = Means(self._learned["centre"], self._learned["directions"]) if "centre" in self._learned else None
        others = self.unknown_embeddings
        return Evidence(self.class_embeddings, others, means, self.temperature, self.image_temperature)

    # --- scores ----------------------------------------------------------------------------------------

    def row_cost(self) -> int:
        others = 0 if self.unknown_embeddings is None else len(self.unknown_embeddings)
        return (2 if self.fitted else 1) * len(self.class_embeddings) + others

    def score_rows(self, z: Tensor) -> Tensor:
        return -(self.evidence(z) @ self._learned["weights"])

    def as_logits_detector(self, scale: float = 100.0) -> OGENLogitsDetector:
        """The same detector for code that reads logits, which gives accuracies too.

        Args:
            scale: of the class logits, `scale * cosine`.
        """
        from ogenlib.detect.logits import OGENLogitsDetector

        return OGENLogitsDetector(self, scale)

    # --- files -----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], Plan]:
        """Tensors by name, and the settings that the learned ones belong to."""
        self.ready()
        features, labels = (None, None) if self._images is None else Images(*self._images).tensors()
        tensors = {
            "class_embeddings": self.class_embeddings,
            "unknown_embeddings": self.unknown_embeddings,
            "features": features,
            "labels": labels,
            **self._learned,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}, self._plan()

    def load_state(self, tensors: Mapping[str, Tensor], learned_with: Plan) -> None:
        """Take back `state()`; ValueError if the settings are not those that it was learned with."""
        if learned_with != self._plan():
            raise ValueError(f"its settings are not those that it learned with: {self._plan()} and {learned_with}")
        # As they are: normalising once more would change their last bits, and with them the scores.
        self.class_embeddings = tensors["class_embeddings"]
        self.unknown_embeddings = tensors.get("unknown_embeddings")
        features, labels = tensors.get("features"), tensors.get("labels")
        whole = None if features is None or labels is None else (features, torch.arange(len(labels)), labels)
        self._images = whole
        self._learned = {name: tensors[name] for name in ("weights", "centre", "directions") if name in tensors}
        self._learned_with = learned_with

    def save(self, folder: str | Path) -> Path:
        """Write embeddings, settings and, if fitted, the images' features; not the encoder. Returns the folder."""
        from ogenlib.detect.files import save_detector

        return save_detector(self, folder)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | None = None, device: str | torch.device = "cpu") -> Self:
        """The detector of a folder that `save` wrote, with the encoder it is given.

        Raises:
            FileNotFoundError, ValueError: not such a folder, or damaged files.
        """
        from ogenlib.detect.files import load_detector

        return load_detector(cls, folder, encoder, device)
