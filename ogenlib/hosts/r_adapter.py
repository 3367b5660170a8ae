"""R-Adapter: linear residual adapters in both towers that melt into the model, and three ensembles of themselves.

"Efficient and Versatile Robust Fine-Tuning of Zero-shot Models", Kim et al., ECCV 2024.
https://arxiv.org/abs/2408.05749

Reproduced: ``x + x P`` without bias behind attention and behind the MLP of every block of both towers, P full or of low
rank; adapter dropping (p = 0.2, kept adapters divided by 1 - p), accumulation (0.999), re-scaling (0.5; 0.8 for
retrieval, 0.4 for segmentation); exact re-parameterisation into the layer before; MPM-NCE with margin 0.05 and
temperature 0.01; AdamW 5e-4 without weight decay, 10 epochs, 500 steps of warm-up, cosine. Class weights are those of
the adapted text tower.
Different: one draw decides for each adapter and step, for the whole batch
(whether the paper drops by batch or by image was not found); the accumulated adapters take the trained ones' place
after the last epoch, and are re-scaled from then on; unless `paper` is asked for, the accumulation follows closely in
the first steps, because a run of a few hundred would otherwise end near its start. Not found, so this library's: the
start, the smoothing of the targets, the rank in few-shot training, the batch size.

Notation: `B` images, `C` classes, `D` embedding, `N` adapters of a tower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.distill import EMA
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, MethodInfo, seeded
from ogenlib.hosts.parts.mpm_nce import mpm_nce
from ogenlib.hosts.parts.pixel_host import PixelHost
from ogenlib.hosts.parts.residual_adapters import TowerAdapters, image_blocks, text_blocks
from ogenlib.hosts.parts.text_pool import TextPool, Texts, class_texts, mean_features
from ogenlib.hosts.parts.tuned_towers import whole_model
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import AnchoredHost, filled
from ogenlib.towers import Backbone, ClipLike
from ogenlib.towers.folded import folded_attention, recomputes
from ogenlib.towers.replaced import call_replaced
from ogenlib.towers.text import encode_ids
from ogenlib.utils.distributed import gather

DROP, ACCUMULATION, MARGIN, TEMPERATURE = 0.2, 0.999, 0.05, 0.01  # paper
SMOOTHING, FEW_SHOT_RANK = 0.1, 16  # ours: the usual smoothing; 1/48 and 1/32 of ViT-B/16's widths
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"alpha": 0.5}, "few-shot": {"alpha": 0.5, "rank": FEW_SHOT_RANK}, "retrieval": {"alpha": 0.8},
    "segmentation": {"alpha": 0.4},
}  # fmt: skip


class Accumulation(EMA):
    """An exponential moving average whose decay in step `t` is at most ``(1 + t) / (10 + t)`` where it is `early`.

    Without it the start still weighs ``decay ** t``: 0.74 after 300 steps at 0.999.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float, early: bool) -> None:
        super().__init__(tensors, decay)
        self.early = early

    def _rates(self, t: int) -> tuple[float, float]:
        decay = min(self.decay, (1 + t) / (10 + t)) if self.early else self.decay
        return decay, 1 - decay

    def _settings(self) -> dict[str, int | float]:
        return {**super()._settings(), "early": int(self.early)}


@register
class RAdapter(PixelHost, AnchoredHost):
    """Residual adapters in both towers; trained on pixels, and a plain open_clip model afterwards (`merged`).

    Args:
        templates: of the texts of any name, and of the zero-shot classifier it starts at.
        texts: name -> its texts, in place of templates (captions, say); None for templates. A text is drawn for every
            image; a name's class weight is the mean over all its texts. Other names may be among them.
        rank: of the adapters; None for full rank.
        drop: chance that an adapter is left out in a step.
        accumulation: decay of the average over steps that is used at test; 0 uses the trained adapters.
        early: let the average follow closely in the first steps.
        alpha: what adapters are multiplied by after training; 1 leaves them as they are.
        margin, smoothing: of MPM-NCE.
        temperature: of MPM-NCE; None for the model's own.
        paper_training: `train_settings` gives the paper's settings.
        generator: of a low-rank start; None for one seeded with 0, so that two builds are equal.

    Attributes:
        visual, text: adapters of the two towers.
        scale: what they are multiplied by now: 1 until training has ended, then `alpha`.

    Raises:
        ValueError: a tower of another kind than open_clip's own (named), a rank that does not fit, a setting out of
            range, a training name without texts.
    """

    info = MethodInfo(
        "r_adapter",
        "fine-tuning",
        "Efficient and Versatile Robust Fine-Tuning of Zero-shot Models",
        "https://arxiv.org/abs/2408.05749",
        2024,
        title="R-Adapter",
        aliases=("residual adapter", "R-Adapters"),
    )
    changes: ClassVar[str] = "puts adapters into both towers"
    published: ClassVar[dict[str, Any]] = {
        "lr": 5e-4,
        "weight_decay": 0.0,
        "optimizer": "adamw",
        "epochs": 10,
        "schedule": "steps",
        "warmup_steps": 500,
    }
    clip: Backbone
    scale: Tensor

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        *,
        texts: Texts | None = None,
        rank: int | None = None,
        drop: float = DROP,
        accumulation: float = ACCUMULATION,
        early: bool = True,
        alpha: float = 0.5,
        margin: float = MARGIN,
        smoothing: float = SMOOTHING,
        temperature: float | None = None,
        paper_training: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names, templates)
        whole = whole_model(clip)
        blocks = image_blocks(whole), text_blocks(whole)
        for name, value in (("drop", drop), ("accumulation", accumulation), ("smoothing", smoothing)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be 0 or more and below 1")
        if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature={temperature}: must be a positive number (paper: {TEMPERATURE}), or None")
        if not (margin >= 0 and math.isfinite(margin)):
            raise ValueError(f"margin={margin}: must be 0 or more (paper: {MARGIN})")
        self.texts = None if texts is None else dict(zip(texts, class_texts(list(texts), texts, ()), strict=True))
        own = class_texts(self.names, self.texts, self.anchor.templates)
        self.pool, self._one_text = TextPool(whole.text, own), all(len(group) == 1 for group in own)
        source = seeded(generator)
        self.visual = TowerAdapters(whole.model, blocks[0], "the image tower", rank=rank, generator=source)
        self.text = TowerAdapters(whole.model, blocks[1], "the text tower", rank=rank, generator=source)
        self.register_buffer("scale", torch.ones((), device=clip.device))
        self.rank, self.drop, self.accumulation, self.early = rank, drop, accumulation, early
        self.alpha, self.margin, self.smoothing = _checked_alpha(alpha), margin, smoothing
        self.temperature, self.paper_training = temperature, paper_training
        self._average: Accumulation | None = None

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], task: str = "classification", **options: Any) -> RAdapter:
        """The paper's settings, whose constant accumulation wants its thousands of steps.

        Args:
            task: ``classification``, ``few-shot`` (low rank), ``retrieval`` or ``segmentation``: which `alpha`.

        Raises:
            ValueError: another task.
        """
        if task not in TASKS:
            raise ValueError(f"task={task!r}: must be one of {', '.join(TASKS)}")
        settings = {"early": False, "temperature": TEMPERATURE, "paper_training": True, **TASKS[task]}
        return cls(clip, names, **{**settings, **options})

    # --- the four verbs -------------------------------------------------------------------------------

    def image_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, D)` of the pixels by the adapted image tower.

        Adapters are dropped where a training step asks: in training mode, with gradients and `batch.generator`.

        Raises:
            ValueError: the batch holds no pixels.
        """
        pixels = self.pixels_of(batch)
        return self._run(self.visual, batch.generator, self.clip.encode_image, pixels)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, D)` of any names, re-encoded by the adapted text tower; no adapter is dropped."""
        given = self.texts or {}
        names = self.names if names is None else names
        groups = [given.get(name) or filled(self.anchor.templates, [name]) for name in names]
        return mean_features(partial(self._run, self.text, None, self.clip.encode_text), groups)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``mpm_nce`` of the images and a text of each, over the whole batch of all processes.

        Texts are those of `w` where every name has a single one.
        """
        if self.training and self._average is None:
            self._start_average()
        z = self.image_features(batch) if z is None else z
        ids = self.pool.draw(batch)
        at_hand = w[batch.labels] if w is not None and self._one_text else None
        texts = self._encode_ids(ids, batch.generator) if at_hand is None else at_hand
        images, texts = gather(z, batch.total), gather(texts, batch.total)
        labels, ids = gather(batch.labels, batch.total), gather(ids, batch.total)
        same = torch.unique(ids, dim=0, return_inverse=True)[1]  # equal captions of two images are no negatives
        loss = mpm_nce(
            images,
            texts,
            (labels[:, None] == labels) | (same[:, None] == same),
            margin=self.margin,
            temperature=1 / self.clip.logit_scale if self.temperature is None else self.temperature,
            smoothing=self.smoothing,
        )
        return {"mpm_nce": loss}

    # --- what the adapters are -------------------------------------------------------------------------

    def _run(
        self, adapters: TowerAdapters, generator: torch.Generator | None, function: Callable[..., Tensor], *args: Any
    ) -> Tensor:
        """`function` of the model's tower with the adapters in it; some dropped in a training step.

        They stand beside the frozen layers in a training step, which is faster, and melt into them otherwise.
        """
        model, shares = self.clip.model, None
        training = self.training and torch.is_grad_enabled()
        if self.drop and training and generator is not None:
            kept = torch.rand(len(adapters), generator=generator) >= self.drop
            shares = (kept.float() / (1 - self.drop)).to(self.device)
        if training and not recomputes(model):
            with adapters.beside(self.scale, shares), folded_attention(model):
                return function(*args)
        return call_replaced(model, adapters.merged(self.scale, shares), function, *args, folded=True)

    def _encode_ids(self, ids: Tensor, generator: torch.Generator | None) -> Tensor:
        """Unit features `(B, D)` of token ids `(B, L)`, equal ones encoded once, with one draw of adapters for all."""
        distinct, places = torch.unique(ids, dim=0, return_inverse=True)
        features = self._run(self.text, generator, encode_ids, self.clip.text, distinct)
        return F.normalize(features, dim=-1)[places]

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The layers of both towers that adapters stand behind, with the adapters in them."""
        return {**self.visual.merged(self.scale), **self.text.merged(self.scale)}

    def rescale(self, alpha: float) -> RAdapter:
        """Multiply the adapters by `alpha` from now on (the model between zero-shot at 0 and trained at 1)."""
        self.alpha = _checked_alpha(alpha)
        self.scale.fill_(self.alpha)
        return self

    # --- training ---------------------------------------------------------------------------------------

    def _start_average(self) -> None:
        """At the adapters as they are. A host that is trained again goes on at its scale, not re-scaled twice."""
        self._average = Accumulation(self.trainable(), self.accumulation, self.early)

    def on_step_end(self) -> None:
        """Take this step's adapters into the average."""
        if self._average is None:
            self._start_average()
        assert self._average is not None
        self._average.update(self._average.t + 1)

    def on_epoch_end(self, epoch: int, total: int) -> None:
        """After the last epoch the average takes the adapters' place, re-scaled."""
        if epoch == total:
            if self._average is not None:
                self._average.copy_to()
            self._average = None
            self.rescale(self.alpha)

    def training_state(self) -> dict[str, Any]:
        return {} if self._average is None else {"average": self._average.state_dict()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self._average = None
        if "average" in state:
            self._start_average()
            assert self._average is not None
            self._average.load_state_dict(state["average"])

    def train_settings(self) -> dict[str, Any]:
        """The paper's settings with `paper_training`; else its rate, schedule and decay for runs of any length: 5 % of
        the steps are warm-up (ours; 500 are 2 % of the paper's run on ImageNet in batches of 512)."""
        if self.paper_training:
            return dict(self.published)
        return {"lr": self.published["lr"], "weight_decay": 0.0, "schedule": "steps", "warmup_steps": 0.05}


def _checked_alpha(alpha: float) -> float:
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha={alpha}: must be 0 or more; 0 is the model as it was, 1 the trained one")
    return float(alpha)
