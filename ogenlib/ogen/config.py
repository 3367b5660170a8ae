"""Settings of OGEN and its presets. Importing this loads no torch; making an `OGENConfig` does.

"Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization", Zang et al., ICLR 2024.
https://arxiv.org/abs/2401.15914
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

_log = logging.getLogger(__name__)
TEACHERS = ("ema", "mean", "almt")
TEACHER_LOSSES = ("kl", "l2")
SPREADS = ("residual", "none")
MAX_NAME_GROUPS = 6  # a prompt learner keeps tokens for so many lists of names
SYNTHESIZED = ("unknown", "known", "all")


@dataclass(frozen=True)
class OGENConfig:
    """What OGEN adds to a host. A weight of 0 leaves a term out and saves its cost.

    The terms see real images (the batch) and synthesized features; "all names" are the known and the unknown ones,
    of the latter one group a step.

    Attributes:
        generator: variant of `ogenlib.generators.list_variants()`, None for no synthesized features.
        spread, k, heads, dropout: of the generator.
        iterations: of its training before the host's, unless `joint`.
        joint: train the generator along with the host and synthesize anew at every step; else it is trained first,
            and `per_class` features of every class are kept.
        warmup: share of the epochs, at the start, in which only the generator learns (needs `joint`).
        generator_weight: of its regression loss, where `joint`.
        synthesize: which classes features are synthesized for: ``unknown``, ``known`` or ``all``. Without unknown names
            it is always ``known``, each class from its neighbours as if its own images were not there.
        rows: synthesized features a step.
        per_class: see `joint`.
        name_groups: the unknown names take turns in so many groups; None for groups a third as large as the known
            names, which keeps a prompt learner's step below 1.3 times its own.
        host_weight: of the host's own terms.
        zero_shot_share: names without images are classified, in training and after it, with
            ``unit(share * zero-shot weight + (1 - share) * the host's)``; 0 leaves them to the host, 1 to zero-shot.
        frozen_images: where `zero_shot_share` is 1 and the host changes the image side, names without images are scored
            on the frozen tower's image features, which are then computed too (one more pass at test time); False
            scores every name on the host's. Nothing to hosts that leave the image side alone.
        pseudo_unknown: where no unknown name is given, the part of the known names that is weighted like unknown ones
            in a step, drawn anew each time; so the two kinds of weights compete in training as they will later.
        zero_shot_kl: of KL(zero-shot || host) on real images over all names.
        synthesized_kl: of the same on synthesized features.
        synthesized_ce: of cross-entropy on synthesized features over all names.
        synthesized_ce_within: of the same over the names of the class's own side (known or unknown).
        branches: three weights of cross-entropy on what is synthesized for each image of a batch, as in the released
            code (`ogenlib.ogen.branches`): its class, among the known names; the class's neighbours, among the same;
            the nearest unknown names, among the unknown. The generator then learns from the same features (needs
            `joint`). None for none of it.
        temperature: of both KL terms and the teacher's.
        teacher: ``ema`` (over steps), ``mean`` or ``almt`` (over epochs), or None.
        teacher_weight: of the distance to the teacher's predictions on real images and synthesized features.
        teacher_loss: ``kl`` or ``l2`` (on logits).
        decay, m_min, m_max: of the teacher.
        keep_teacher: whether the trained host ends with the teacher's tensors.
        evidence: at test time, densities of the classes count beside the host's logits (`ogenlib.ogen.evidence`), with
            this share of the weight that episodes among the known classes choose beside zero-shot; 0 leaves them out.
            They are of the frozen image features: nothing to a host that changes them, but where names are scored on
            frozen ones too (`frozen_images`).
        evidence_zero_shot: share of zero-shot weights in those of all names, at test time, where evidence counts.
    """

    generator: str | None = "text-only"
    spread: str = "residual"
    k: int = 3
    heads: int = 4
    dropout: float = 0.1
    iterations: int = 300
    joint: bool = False
    warmup: float = 0.0
    generator_weight: float = 1.0
    synthesize: str = "all"
    rows: int = 32
    per_class: int = 64
    name_groups: int | None = None
    host_weight: float = 1.0
    zero_shot_share: float = 1.0
    frozen_images: bool = True
    pseudo_unknown: float = 0.25
    zero_shot_kl: float = 0.3
    synthesized_kl: float = 0.0
    synthesized_ce: float = 0.3
    synthesized_ce_within: float = 0.0
    branches: tuple[float, float, float] | None = None
    temperature: float = 1.0
    teacher: str | None = "almt"
    teacher_weight: float = 1.0
    teacher_loss: str = "kl"
    decay: float = 0.9
    m_min: int = 2
    m_max: int = 9
    keep_teacher: bool = False
    evidence: float = 0.75
    evidence_zero_shot: float = 0.0

    def __post_init__(self) -> None:
        from ogenlib.generators import list_variants  # not above: it loads torch, and the names of presets need none

        for name in (
            "generator_weight",
            "host_weight",
            "zero_shot_kl",
            "synthesized_kl",
            "synthesized_ce",
            "synthesized_ce_within",
            "teacher_weight",
            "evidence",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more")
        for name, low in (
            ("rows", 1),
            ("per_class", 1),
            ("iterations", 1),
            ("name_groups", 1),
            ("k", 1),
            ("heads", 1),
            ("m_min", 0),
            ("m_max", self.m_min),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < low):
                raise ValueError(f"{name}={value}: must be {low} or more, and whole")
        for name, accepted in (
            ("synthesize", SYNTHESIZED),
            ("teacher", (None, *TEACHERS)),
            ("teacher_loss", TEACHER_LOSSES),
            ("generator", (None, *list_variants())),
            ("spread", SPREADS),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(map(str, accepted))}")
        if self.name_groups is not None and self.name_groups > MAX_NAME_GROUPS:
            raise ValueError(f"name_groups={self.name_groups}: at most {MAX_NAME_GROUPS}")
        for name in ("dropout", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be 0 or more and below 1")
        if not 0 <= self.pseudo_unknown < 1:
            raise ValueError(f"pseudo_unknown={self.pseudo_unknown}: must be 0 or more and below 1")
        for name in ("zero_shot_share", "evidence_zero_shot"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be from 0 to 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup}: must be a share of the epochs, 0 or more and below 1")
        if self.warmup and not (self.joint and self.generator):
            raise ValueError("warmup needs joint=True and a generator: nothing would learn before the host does")
        if self.branches is not None:
            if len(self.branches) != 3 or not all(0 <= weight < float("inf") for weight in self.branches):
                raise ValueError(f"branches={self.branches}: three weights, each 0 or more")
            if not (self.joint and self.generator):
                raise ValueError("branches needs joint=True and a generator: one that learns from the images of a step")
            object.__setattr__(self, "branches", tuple(self.branches))
        if self.joint and self.generator == "shift":
            raise ValueError("generator='shift' has nothing to train: leave out joint=True, or name another generator")
        if self.keep_teacher and self.teacher is None:
            raise ValueError(f"keep_teacher=True needs a teacher: one of {', '.join(TEACHERS)}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: must be a positive number")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able fields; `branches` only where there are some, so that what was saved without them stays equal."""
        said = asdict(self)
        if self.branches is None:
            del said["branches"]
        return said


# What each preset has otherwise than `OGENConfig` by default.
# "paper": what is known of the paper (see docs/ogen.md): joint extrapolation, one random image a neighbour, known
#   classes split at random, warm-up, joint training and synthesized features of known classes too as in the released
#   code, cross-entropy on them in the joint label space, consistency with the adaptive local mean teacher. Its weights
#   are this library's.
# "released-code": its generator, branches, weights and warm-up, all new names at once; no teacher, because the released
#   code never calls one. docs/ogen.md says what is still otherwise.
# "zero-shot-kl": no generator, no teacher: the baseline that everything is measured against.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "ogenlib": MappingProxyType({}),
    "paper": MappingProxyType({
        "generator": "joint", "spread": "none", "joint": True, "warmup": 0.2, "synthesize": "all",
        "zero_shot_share": 0.0, "zero_shot_kl": 0.0, "synthesized_ce": 1.0, "teacher": "almt", "teacher_weight": 1.0,
        "evidence": 0.0,
    }),
    "released-code": MappingProxyType({
        "generator": "released", "spread": "none", "joint": True, "warmup": 0.2, "name_groups": 1,
        "host_weight": 0.25, "zero_shot_share": 0.0, "zero_shot_kl": 0.0, "synthesized_ce": 0.0,
        "branches": (0.25, 0.25 / 3, 0.5 / 3), "teacher": None, "evidence": 0.0,
    }),
    "zero-shot-kl": MappingProxyType({
        "generator": None, "teacher": None, "zero_shot_share": 0.0, "zero_shot_kl": 1.0, "evidence": 0.0,
    }),
})  # fmt: skip


# What a preset changes for a kind of host (`Host.ogen_kind`). A prompt learner's words for names without images are no
# better than the zero-shot ones; what an adapter learns from images of other names carries over in part, and to it all
# names at once cost little. Prompts on the image side, trained for fewer epochs, and those whose own loss holds them at
# zero-shot would hardly learn under the same pull. Fine-tuning trains whole towers, of which ALMT would keep up to ten
# snapshots; up to four are as good on the tasks that settings are chosen on (docs/robust.md).
FOR_KIND: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType({
    ("ogenlib", "adapter"): MappingProxyType({
        "zero_shot_share": 0.3, "zero_shot_kl": 0.1, "name_groups": 1, "evidence": 1.0, "evidence_zero_shot": 0.5,
    }),
    ("ogenlib", "visual prompt"): MappingProxyType({"zero_shot_kl": 0.1}),
    ("ogenlib", "anchored prompt"): MappingProxyType({"zero_shot_kl": 0.1}),
    ("ogenlib", "fine-tuning"): MappingProxyType({"m_max": 3, "evidence": 0.0}),
    ("zero-shot-kl", "adapter"): MappingProxyType({"name_groups": 1}),
})  # fmt: skip


def ogen_config(preset: str = "ogenlib", kind: str = "prompt", **overrides: Any) -> OGENConfig:
    """A preset with some fields replaced.

    Args:
        kind: of the host, `Host.ogen_kind`.

    Raises:
        ValueError: unknown preset or field (with the closest known one), or a value out of range.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; known are {', '.join(PRESETS)}")
    known = [f.name for f in fields(OGENConfig)]
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"OGEN has no setting {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    return OGENConfig(**{**PRESETS[preset], **FOR_KIND.get((preset, kind), {}), **overrides})


def settings_for(preset: str, settings: Mapping[str, Any], n_known: int) -> dict[str, Any]:
    """OGEN's settings for so many known names: as given, with no more neighbours than there are other names.

    A `k` among `settings` is left alone, so that OGEN can refuse it. One name alone has no neighbours, and so no
    generator. Both are logged.
    """
    chosen = ogen_config(preset, **settings)
    if chosen.generator is None or "k" in settings or chosen.k < n_known:
        return dict(settings)
    if n_known < 2:
        _log.warning("OGEN works without synthesized features: a single known name has no neighbours")
        return {**settings, "generator": None, "joint": False, "warmup": 0.0}
    _log.warning(
        "OGEN synthesizes from %d neighbours, not %d: there are only %d known names", n_known - 1, chosen.k, n_known
    )
    return {**settings, "k": n_known - 1}
