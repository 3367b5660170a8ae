"""OGEN: any host, trained with synthesized features of unknown classes and with self-distillation.

"Overcoming the Pitfalls of Vision-Language Model Finetuning for OOD Generalization", Zang et al., ICLR 2024.
https://arxiv.org/abs/2401.15914

Reproduced: a class-conditional generator that extrapolates from known neighbours, trained on random divisions of the
known classes; a warm-up phase; joint training of host and generator; the adaptive local mean teacher. The default
preset is this library's own recipe (docs/ogen.md says what it changes and what was tried); ``paper`` and
``released-code`` follow their sources as far as those say; the latter's step is the released code's in value and
gradient (`ogenlib.ogen.branches`).
Not reproduced: what neither paper summary nor code states (teacher weight and decay, what is distilled).

Notation: `B` images, `S` synthesized features, `C` names, `D` embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import FeatureBank
from ogenlib.distill import EMA, Teacher
from ogenlib.distill.named import copy_into
from ogenlib.generators import ClassConditionalGenerator
from ogenlib.hosts import Batch, Host, ZeroShotAnchor
from ogenlib.hosts.run_folder import EVIDENCE, GENERATOR
from ogenlib.ogen.branches import branch_terms
from ogenlib.ogen.config import ogen_config
from ogenlib.ogen.evidence import Evidence, fit_evidence
from ogenlib.ogen.evidence_file import save_evidence
from ogenlib.ogen.generator_file import save_generator
from ogenlib.ogen.names import other_names
from ogenlib.ogen.objective import StepLogits, start_teacher, step_terms, wants_synthesized
from ogenlib.ogen.scoring import Group, Scoring, with_synthesized
from ogenlib.ogen.synthesis import Synthesizer, draw_labels
from ogenlib.utils.distributed import gather


class OGEN(Host):
    """A host with OGEN's terms added to its own; at test time it costs what the host costs.

    But for one case: around a host that changes the image side, an image also goes through the frozen tower, whose
    features names without images are scored on (`frozen_images`).

    Args:
        host: what is trained; it must have something to train.
        known: its names, as a check; None takes them.
        unknown: names that will be tested and have no images; None when they are held out.
        vocabulary: other names to stand in for held-out ones (no image of them is needed either).
        preset: ``ogenlib``, ``paper``, ``released-code`` or ``zero-shot-kl``.
        templates: of the zero-shot classifier that is distilled; None for the host's own.
        overrides: fields of `OGENConfig`.

    Attributes:
        config_: the settings (`config()` is the verb of every host).
        others, names_known: the names besides `names`, and whether they are those that will be tested.
        teacher, rows: the teacher, and what synthesizes features; set by `prepare`, that is by `ogenlib.fit`.
        evidence: what is added to class weights at test time, None for nothing; set by `prepare` too.

    Raises:
        ValueError: `known` that are not the host's names, an unknown name that is known, names and a vocabulary both,
            a host without parameters, or a setting out of range.
    """

    def __init__(
        self,
        host: Host,
        known: Sequence[str] | None = None,
        unknown: Sequence[str] | None = None,
        *,
        vocabulary: Sequence[str] | None = None,
        preset: str = "ogenlib",
        templates: str | Sequence[str] | None = None,
        **overrides: Any,
    ) -> None:
        others = other_names(host.names, known, unknown, vocabulary)
        if isinstance(host, OGEN):
            raise ValueError("this host is an OGEN already; pass the host inside it: OGEN(model.host, ...)")
        super().__init__(host.clip, host.names)
        if not host.trainable():
            raise ValueError(f"{host.info.name} has nothing to train, so OGEN has nothing to add to")
        self.host = host
        self.info = host.info  # type: ignore[misc]
        # What the host inside says of itself holds for the whole.
        for capability in ("uses_cached_features", "reads_frozen", "own_image_side", "own_logits"):
            setattr(self, capability, getattr(host, capability))
        self.preset, self.config_ = preset, ogen_config(preset, host.ogen_kind(), **overrides)
        self.names_known = unknown is not None
        self.others = others
        self.anchor = ZeroShotAnchor(host.clip, host.reference_templates() if templates is None else templates)
        self.scoring = Scoring(host, others, self.anchor, self.config_)
        self.teacher: Teacher | None = None
        # Outside the module tree: a saved run, a snapshot and a state dict are the host's.
        object.__setattr__(self, "rows", None)
        object.__setattr__(self, "_loaded_generator", None)
        object.__setattr__(self, "evidence", None)
        self._teacher_weights: Tensor | None = None
        self._epoch, self._epochs, self._step = 1, 1, 0

    rows: Synthesizer | None
    evidence: Evidence | None

    @property
    def inner(self) -> Host:
        return self.host.inner

    def around(self, inner: Host) -> OGEN:
        return OGEN.from_card(inner, self.card(), self.generator, self.evidence)

    def merged(self) -> dict[str, Tensor] | None:
        return self.host.merged()

    def ogen_kind(self) -> str:  # type: ignore[override]  # a wrapper has no kind but that of the host in it
        return self.host.ogen_kind()

    @property
    def generator(self) -> ClassConditionalGenerator | None:
        """The generator that was trained, or that a saved run brought along."""
        return self._loaded_generator if self.rows is None else self.rows.generator

    # --- the four verbs: the host's, with more losses ---------------------------------------------------

    def image_features(self, batch: Batch) -> Tensor:
        """The host's `(B, D)`; with `frozen_images` `(B, 2 D)`, behind them those of the frozen tower."""
        return self.scoring.image_features(batch)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """The host's, mixed with zero-shot ones (`zero_shot_share`) for names it has no images of.

        With `frozen_images` they are `(C, 2 D)` and zero where they meet the features that a name is not scored on.
        With `evidence` they are no unit rows: what densities say of a class is in them. Of a host whose logits are more
        than scaled cosines they are `(C, 2 D)`, what the evidence adds behind the host's own.
        """
        weights = self.text_weights(names, z)
        if self.evidence is None:
            return weights
        chosen = self.names if names is None else tuple(names)
        if self.own_logits:
            return torch.cat([weights, self.evidence.beside(chosen, self.anchor(chosen)).to(weights)], dim=-1)
        return self.evidence.added(weights, chosen, self.anchor(chosen))

    def text_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        return self.scoring.class_weights(self.names if names is None else tuple(names), z)

    def logits(self, z: Tensor, w: Tensor) -> Tensor:
        if self.evidence is None or not self.own_logits or w.shape[-1] == z.shape[-1]:
            return self.host.logits(z, w)
        own, beside = w.split(z.shape[-1], dim=-1)
        share = (1 - self.evidence.zero_shot) / self.evidence.temperature
        return share * self.host.logits(z, own) + Host.logits(self.host, z, beside)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The host's parameters, and the generator's where it trains along."""
        own = self.host.trainable()
        if self.rows is not None and self.config_.joint:
            own |= {f"generator.{n}": p for n, p in self.rows.generator.named_parameters() if p.requires_grad}
        return own

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """The host's terms and OGEN's, all weighted.

        Raises:
            RuntimeError: `prepare` was not called (`ogenlib.fit` does).
        """
        config, scoring, draws = self.config_, self.scoring, batch.generator
        if config.generator is not None and self.rows is None:
            raise RuntimeError("OGEN has no generator yet; train with ogenlib.fit, or call prepare(bank, epochs, seed)")
        terms: dict[str, Tensor] = {}
        if self.rows is not None and config.joint and config.branches is None:
            terms["generator"] = config.generator_weight * self.rows.loss(batch.total or len(batch.labels), draws)
            if self._warming_up:
                return terms
        z = self.image_features(batch) if z is None else z
        group = scoring.draw_group(draws)
        if self._warming_up:
            with torch.no_grad():
                weights = scoring.mixed_weights(group, z)
            return self._branches(batch, z, weights)
        synthesized, labels = self._synthesized(group, draws)
        stand_ins = scoring.draw_stand_ins(draws)
        features = with_synthesized(z, synthesized)
        weights, scored = scoring.with_stand_ins(scoring.mixed_weights(group, features), group, stand_ins)
        n, known, dim = len(z), len(self.names), group.zero_shot.shape[1]
        if config.branches is not None:
            terms |= self._branches(batch, z, weights[:n] if weights.ndim == 3 else weights)
        of_host = weights[:n, :known] if weights.ndim == 3 else weights[:known]
        for name, term in self.host.losses(batch, z=z[:, :dim], w=of_host).items():
            terms[name] = config.host_weight * term
        logits = self.host.logits(features, scored)
        zero_shot = scoring.zero_shot_logits(batch, z, synthesized, group)
        taught = self.teacher is not None and self.teacher.t and config.teacher_weight
        teacher = self._teacher_logits(batch, z, synthesized, group, stand_ins) if taught else None
        return terms | step_terms(StepLogits(logits, zero_shot, teacher, labels, n, known), config)

    def _branches(self, batch: Batch, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Terms of what is synthesized for the images of a step, of class weights that may depend on them.

        Every process makes those of the whole batch, so that dropout does not depend on how they share it.
        """
        config, redrawn = self.config_, not self._warming_up
        assert self.rows is not None and config.branches is not None
        z = gather(z[:, : weights.shape[-1]].detach(), batch.total)  # with two towers, those of the host
        labels = gather(batch.labels, batch.total)
        weights = gather(weights, batch.total) if weights.ndim == 3 else weights
        made = self.rows.branches(weights, z, labels, batch.generator, redrawn=redrawn)
        terms = {"generator": config.generator_weight * made.regression}
        if redrawn:
            terms |= branch_terms(made, weights, len(self.names), self.host.logits, config.branches)
        return terms

    @property
    def _warming_up(self) -> bool:
        return self.config_.joint and self._epoch <= self.config_.warmup * self._epochs

    def _synthesized(self, group: Group, draws: torch.Generator | None) -> tuple[Tensor | None, Tensor | None]:
        """Features `(S, D)` and labels `(S,)` into the group's names, where a term sees them."""
        if self.rows is None or not wants_synthesized(self.config_, self.teacher is not None):
            return None, None
        labels = draw_labels(self.config_, len(self.names), len(group.names), draws).to(group.indices.device)
        return self.rows.draw(group.indices[labels], draws), labels

    # --- teacher ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def _teacher_logits(
        self, batch: Batch, z: Tensor, synthesized: Tensor | None, group: Group, stand_ins: Tensor | None
    ) -> Tensor:
        """`(B + S, C)`."""
        assert self.teacher is not None
        scoring = self.scoring
        weights = None if self._teacher_weights is None else self._teacher_weights[group.indices]
        # Weights that were kept are enough for a host that trains nothing else.
        kept = weights is not None and self.uses_cached_features and not self.own_logits
        with nullcontext() if kept else self.teacher.swapped():
            if not self.uses_cached_features:
                z = torch.cat([self.host.image_features(batch), z[:, group.zero_shot.shape[1] :]], dim=-1)
            features = with_synthesized(z, synthesized)
            if weights is None:
                weights = scoring.mixed_weights(group, features)
            return self.host.logits(features, scoring.with_stand_ins(weights, group, stand_ins)[1])

    def on_step_end(self) -> None:
        self.host.on_step_end()
        if isinstance(self.teacher, EMA) and not self._warming_up:
            self._step += 1
            self.teacher.update(self._step)
            if self._step == 1:
                self._refresh_teacher()

    @torch.no_grad()
    def _refresh_teacher(self) -> None:
        """Class weights by the teacher, once an epoch, where they do not depend on the images."""
        self._teacher_weights = None
        if self.teacher is None or not self.teacher.t:
            return
        with self.teacher.swapped():
            weights = self.scoring.mixed_weights(self.scoring.described(self.scoring.every), self._probe)
        if weights.ndim == 2:
            self._teacher_weights = weights

    # --- training --------------------------------------------------------------------------------------

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Train the generator on the known images, and make the teacher."""
        config = self.config_
        self.host.prepare(data, epochs, seed)
        self._epoch, self._epochs, self._step = 1, epochs, 0
        if config.generator is not None:
            embeddings = self.anchor(self.scoring.every)
            synthesizer = Synthesizer(config, data.features, data.labels, embeddings, seed)
            object.__setattr__(self, "rows", synthesizer)
        if config.evidence and (self.uses_cached_features or self.scoring.two_towers):
            known, scale = self.anchor(self.names), float(self.clip.logit_scale)
            shares = (config.evidence, config.evidence_zero_shot)
            evidence = fit_evidence(data.features, data.labels, self.names, known, scale, shares, seed)
            object.__setattr__(self, "evidence", evidence)
        self._probe = F.normalize(data.features[:1, 0].float(), dim=-1)
        self.teacher = start_teacher(config, self.host.trainable(), epochs)
        self._teacher_weights = None

    def on_start(self, epochs: int, steps: int) -> None:
        self.host.on_start(epochs, steps)

    def on_epoch_end(self, epoch: int, total: int) -> None:
        self.host.on_epoch_end(epoch, total)
        self._epoch = epoch + 1
        if self.teacher is None:
            return
        if not isinstance(self.teacher, EMA):
            self.teacher.update(epoch)
        self._refresh_teacher()
        if epoch == total and self.config_.keep_teacher:
            self.teacher.copy_to()

    def training_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"host": self.host.training_state(), "epoch": self._epoch, "step": self._step}
        if self.teacher is not None:
            state["teacher"] = self.teacher.state_dict()
        if self.rows is not None and self.config_.joint:
            # Its buffers hold the training features, which `prepare` brings back.
            state["generator"] = {n: p.detach() for n, p in self.rows.generator.named_parameters()}
        return state

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self.host.load_training_state(state["host"])
        self._epoch, self._step = state["epoch"], state["step"]
        if self.rows is not None and self.config_.joint:
            copy_into(dict(self.rows.generator.named_parameters()), state["generator"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
            self._refresh_teacher()

    # --- the rest of a host ----------------------------------------------------------------------------

    def reference_templates(self) -> tuple[str, ...]:
        return self.anchor.templates

    def train_settings(self) -> dict[str, Any]:
        return self.host.train_settings()

    def checkpointed(self) -> list[Any]:
        return self.host.checkpointed()

    def config(self) -> dict[str, Any]:
        """The host's settings, with OGEN's under ``ogen``."""
        return {**self.host.config(), "ogen": self.card()}

    def card(self) -> dict[str, Any]:
        """Preset, settings, templates and names, and whether the new names were known in training; JSON-able."""
        return {
            "preset": self.preset,
            "settings": self.config_.as_dict(),
            "templates": list(self.anchor.templates),
            "new_names_known_in_training": self.names_known,
            "other_names": list(self.others),
        }

    @classmethod
    def from_card(
        cls,
        host: Host,
        card: Mapping[str, Any],
        generator: ClassConditionalGenerator | None = None,
        evidence: Evidence | None = None,
    ) -> OGEN:
        """OGEN around a host as `card()` describes it, with the generator and the evidence that were saved beside it.

        Raises:
            ValueError: evidence of other names than the host's, or of other dimensions.
        """
        if evidence is not None and (evidence.names, len(evidence.constant)) != (host.names, host.clip.embed_dim):
            raise ValueError(f"the evidence is of {len(evidence.names)} names, and not of the host's in its dimensions")
        names = {"unknown" if card["new_names_known_in_training"] else "vocabulary": card["other_names"]}
        settings = {"branches": None, **card["settings"]}  # a preset may have them now that did not then
        model = cls(host, **names, preset=card["preset"], templates=card["templates"], **settings)
        object.__setattr__(model, "_loaded_generator", generator)
        object.__setattr__(model, "evidence", evidence)
        return model

    def write_beside(self, folder: Path) -> dict[str, str]:
        """The generator and the evidence, if there are such."""
        written = {}
        if self.generator is not None:
            written[GENERATOR] = save_generator(self.generator, folder / GENERATOR)
        if self.evidence is not None:
            written[EVIDENCE] = save_evidence(self.evidence, folder / EVIDENCE)
        return written
