"""PromptKD: a student of visual prompts learns a trained teacher's predictions, and needs no labels for it.

"PromptKD: Unsupervised Prompt Distillation for Vision-Language Models", Li et al., CVPR 2024.
https://arxiv.org/abs/2403.02781

Reproduced: the teacher's class weights, computed once, serve teacher and student; the student's image side has 4 tokens
in each of 9 layers and a projector into the teacher's space (two 1x1 convolutions, which on one vector are linear maps,
with batch norm and ReLU between them), on features before normalising; KL(teacher || student) over all names, divided
by images and names and times 1000; labels are never read.
Different: by default the images are those given to training, of the known names only. The paper distills on unlabelled
images of *all* names, the new ones too, which no other method here sees: `unlabelled` gives them, and a saved run says
so. The first map has no bias, which batch norm takes out again; a batch of one image takes the running statistics;
tokens join behind `ln_pre`, as for `VPT`. The teacher is any host on any backbone (there: PromptSRC on ViT-L/14).

Notation: `B` images, `C` classes, `D` the student's embedding, `T` the teacher's, `V` visual tokens, `W` image width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib.data import FeatureBank, PixelBank
from ogenlib.distill import kl_divergence
from ogenlib.hosts.base import DEFAULT_TEMPLATES, Batch, Host, MethodInfo, seeded
from ogenlib.hosts.parts.deep_prompts import PromptedImages, check_count, random_prompts, usable_depth
from ogenlib.hosts.registry import register
from ogenlib.hosts.zero_shot import ZeroShot
from ogenlib.towers import ClipLike

TOKENS, DEPTH = 4, 9  # released code, configs/trainers/PromptKD
WEIGHT = 1000.0  # released scripts (200 for Aircraft, Flowers and DTD)
BATCH = 64  # images a pass, where the teacher looks at the unlabelled ones


@register
class PromptKD(PromptedImages, Host):
    """A student with visual prompts in the space of a teacher.

    A saved run opens without the teacher and knows the names it was distilled on (`names` and `other_names`), whose
    weights it keeps. For others it asks the teacher: the saved run it came from, if that is still where it was, or
    the host given to `ask`.

    Args:
        teacher: a trained host, or the folder of a saved run; None for zero-shot of the same model and `templates`,
            which teaches it nothing that it does not know and is there to try things out.
        other_names: names without images that the student learns to tell from the known ones; names are all it needs.
        unlabelled: pixels that training draws from instead of the images it is given. They may be of any classes;
            of new ones this is the paper's (transductive) setting.
        templates: of the zero-shot teacher.
        n_visual, depth: `V`, and layers with tokens; None for 9, or all of a tower with fewer.
        weight, temperature: of the KL.
        paper_training: `train_settings` gives the released code's settings.
        taught_by: what `config()` says of the teacher of a saved run; not for use by hand.
        generator: of the random start; None for one seeded with 0, so that two builds are equal.

    Attributes:
        taught_by: the teacher and the unlabelled images, JSON-able.

    Raises:
        ValueError: a teacher whose weights depend on the image or that wants other pixels, an image tower that takes no
            visual prompts (named), a depth it has not, no tokens, or a weight or temperature that is not positive.
        FileNotFoundError: `teacher` is no saved run.
    """

    info = MethodInfo(
        "promptkd",
        "prompt",
        "PromptKD: Unsupervised Prompt Distillation for Vision-Language Models",
        "https://arxiv.org/abs/2403.02781",
        2024,
        ogen=False,  # it reads no features that OGEN could synthesize
        title="PromptKD",
    )
    unsaved: ClassVar[frozenset[str]] = frozenset(("teacher", "unlabelled", "templates"))  # `taught_by` says which
    published: ClassVar[dict[str, Any]] = {"lr": 5e-3, "optimizer": "sgd", "epochs": 20, "batch_size": 8}
    teacher_weights: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        clip: ClipLike,
        names: Sequence[str],
        teacher: Host | str | os.PathLike[str] | None = None,
        *,
        other_names: Sequence[str] = (),
        unlabelled: PixelBank | None = None,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        n_visual: int = TOKENS,
        depth: int | None = None,
        weight: float = WEIGHT,
        temperature: float = 1.0,
        paper_training: bool = False,
        taught_by: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(clip, names)
        for name, value in (("weight", weight), ("temperature", temperature)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value}: must be a positive number (released: {WEIGHT:g} and 1)")
        self.other_names = tuple(n for n in dict.fromkeys(other_names) if n not in self.names)
        self.weight, self.temperature, self.paper_training = weight, temperature, paper_training
        width, layers = clip.image.width, clip.image.layers
        self.depth = usable_depth(depth, DEPTH, layers, "the image tower")
        object.__setattr__(self, "_teacher", None)  # outside the module tree, like the backbone
        object.__setattr__(self, "unlabelled", unlabelled)
        self._seen: Tensor | None = None
        if unlabelled is not None:
            unlabelled.check_preprocess(clip)
        every = (*self.names, *self.other_names)
        if taught_by is None:
            folder = None if isinstance(teacher, Host) or teacher is None else str(Path(teacher).resolve())
            host = self._opened(teacher, templates)
            self.ask(host)
            given = None if unlabelled is None else {"images": len(unlabelled), "data": unlabelled.fingerprint["data"]}
            self.taught_by: dict[str, Any] = {
                "method": host.info.name,
                "run": folder,
                "same_backbone": host.clip is clip,
                "config": host.config(),
                "backbone": host.clip.fingerprint(),
                "embed_dim": host.clip.embed_dim,
                "unlabelled": given,
            }
            weights = self._asked(every)
        else:
            self.taught_by = dict(taught_by)
            weights = torch.zeros(len(every), taught_by["embed_dim"], device=clip.device)  # the run brings them
        self.register_buffer("teacher_weights", weights)
        source, wide = seeded(generator), weights.shape[1]
        shape = (self.depth, check_count("n_visual", n_visual), width)
        self.visual = random_prompts(*shape, generator=source, device=clip.device)
        self.down = _uniform(wide, clip.embed_dim, source=source, device=clip.device)
        self.gain, self.shift = (nn.Parameter(f(wide, device=clip.device)) for f in (torch.ones, torch.zeros))
        self.up = _uniform(wide, wide, source=source, device=clip.device)
        self.up_bias = _uniform(wide, source=source, device=clip.device)
        self.register_buffer("mean", torch.zeros(wide, device=clip.device))
        self.register_buffer("variance", torch.ones(wide, device=clip.device))

    unlabelled: PixelBank | None
    _teacher: Host | None

    @classmethod
    def paper(cls, clip: ClipLike, names: Sequence[str], teacher: Any, **options: Any) -> PromptKD:
        """4 tokens, 9 layers, weight 1000, SGD 5e-3, 20 epochs, batches of 8; give `unlabelled` and `other_names`."""
        return cls(clip, names, teacher, **{"paper_training": True, **options})

    @classmethod
    def dataset_options(cls, templates: Sequence[str]) -> dict[str, Any]:
        """The dataset's own templates, for the zero-shot teacher."""
        return {"templates": list(templates)}

    # --- the teacher ------------------------------------------------------------------------------------

    def ask(self, teacher: Host) -> None:
        """Make `teacher` the one that is asked for the weights of names.

        Raises:
            ValueError: it wants other pixels, or is of another width than the one before.
        """
        theirs, own = (c.preprocess_cfg for c in (teacher.clip, self.clip))
        if theirs != own:
            raise ValueError(f"the teacher's backbone wants pixels as {theirs}, the student's as {own}; pair two alike")
        width = getattr(self, "taught_by", {}).get("embed_dim", teacher.clip.embed_dim)
        if teacher.clip.embed_dim != width:
            raise ValueError(f"the teacher has {teacher.clip.embed_dim} dimensions, this student's had {width}")
        object.__setattr__(self, "_teacher", teacher.eval())

    def _opened(self, teacher: Host | str | os.PathLike[str] | None, templates: str | Sequence[str]) -> Host:
        if isinstance(teacher, Host):
            return teacher
        if teacher is None:
            return ZeroShot(self.clip, self.names, templates)
        from ogenlib.runs.saved import load_run, read_run

        folder = Path(teacher)
        same = read_run(folder)["backbone"]["weights_hash"] == self.clip.weights_hash
        return load_run(folder, self.clip if same else None, self.device)

    def _get_teacher(self) -> Host:
        """The teacher, opened now if a saved run was opened without it.

        Raises:
            ValueError: it is nowhere.
        """
        if self._teacher is None:
            run, same = self.taught_by["run"], self.taught_by["same_backbone"]
            if run is not None and (Path(run) / "run.json").is_file():
                self.ask(self._opened(run, ()))
            elif same and self.taught_by["method"] == "zero_shot":
                self.ask(ZeroShot(self.clip, self.names, self.taught_by["config"]["templates"]))
            else:
                where = "was never saved" if run is None else f"is no longer in {run}"
                raise ValueError(
                    f"this needs the teacher ({self.taught_by['method']}), which {where}; without it the student knows "
                    f"{[*self.names, *self.other_names][:5]} and what else it was distilled on; give it back with "
                    "host.ask(teacher)"
                )
        assert self._teacher is not None
        return self._teacher

    @torch.no_grad()
    def _asked(self, names: tuple[str, ...]) -> Tensor:
        """`(C, T)` by the teacher; kept in fp32 whatever the precision of the step that asks."""
        teacher = self._get_teacher()
        with torch.autocast(self.device.type, enabled=False):
            probe = F.normalize(torch.ones(1, teacher.clip.embed_dim, device=teacher.device), dim=-1)
            w = teacher.class_weights(names, z=probe)
        if w.ndim != 2:
            raise ValueError(f"class weights of {teacher.info.name} depend on the image; take another teacher")
        return w.detach().float().to(self.device)

    @torch.no_grad()
    def _teacher_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, T)` of the same pixels by the teacher; no pass where the bank's features are those."""
        teacher = self._get_teacher()
        own = teacher.clip is self.clip and teacher.uses_cached_features
        features = batch.features if own else None
        return teacher.image_features(Batch(batch.labels, features=features, pixels=batch.pixels)).to(self.device)

    # --- the student ------------------------------------------------------------------------------------

    def visual_prompts(self) -> Tensor:
        """`(depth, V, W)`."""
        return self.visual

    def image_features(self, batch: Batch) -> Tensor:
        """Unit features `(B, T)` of the pixels: with prompts, through the projector; ValueError without pixels."""
        hidden = F.linear(self.prompted_features(batch), self.down).float()
        fresh = self.training and torch.is_grad_enabled() and len(hidden) > 1
        hidden = F.batch_norm(hidden, self.mean, self.variance, self.gain, self.shift, training=fresh)
        return F.normalize(F.linear(F.relu(hidden), self.up, self.up_bias).float(), dim=-1)

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        """Unit weights `(C, T)`, the teacher's; ValueError for names it has to be asked for when it is not there."""
        names = self.names if names is None else tuple(names)
        index = {name: i for i, name in enumerate((*self.names, *self.other_names))}
        if all(name in index for name in names):
            return self.teacher_weights[[index[name] for name in names]]
        return self._asked(names)

    def losses(self, batch: Batch, *, z: Tensor | None = None, w: Tensor | None = None) -> dict[str, Tensor]:
        """``kd``, weighted: of the batch's images, or of as many unlabelled ones. `z` and `w` are not used."""
        if self.unlabelled is not None:
            batch, features = self._drawn(batch)
        else:
            features = self._teacher_features(batch)
        teacher = self._get_teacher()
        with torch.no_grad():
            target = teacher.logits(features.to(teacher.device), self.teacher_weights.to(teacher.device))
        logits = self.logits(self.image_features(batch), self.teacher_weights)
        term = kl_divergence(logits, target.to(self.device), self.temperature) / logits.shape[1]
        return {"kd": self.weight * term}

    def prepare(self, data: FeatureBank, epochs: int, seed: int) -> None:
        """Let the teacher look at every view of the unlabelled images, once."""
        bank = self.unlabelled
        if bank is None:
            return
        images = torch.arange(len(bank)).repeat_interleave(bank.views)
        views = torch.arange(bank.views).repeat(len(bank))
        seen = [
            self._teacher_features(Batch(torch.zeros(len(i)), pixels=bank.pixels(i, v).to(self.device)))
            for i, v in zip(images.split(BATCH), views.split(BATCH), strict=True)
        ]
        self._seen = torch.cat(seen).unflatten(0, (len(bank), bank.views))

    def _drawn(self, batch: Batch) -> tuple[Batch, Tensor]:
        """As many unlabelled images as the batch has, and the teacher's features `(B, T)` of them."""
        bank = self.unlabelled
        assert bank is not None
        images = torch.randint(len(bank), (len(batch.labels),), generator=batch.generator)
        views = bank.draw(len(images), batch.generator)
        drawn = Batch(batch.labels, pixels=bank.pixels(images, views).to(self.device))
        return drawn, self._teacher_features(drawn) if self._seen is None else self._seen[images, views]


def _uniform(*shape: int, source: torch.Generator, device: torch.device) -> nn.Parameter:
    """Uniform in +-1/sqrt(inputs), as torch starts a Linear; a bias by its own length."""
    return nn.Parameter(((2 * torch.rand(*shape, generator=source) - 1) / shape[-1] ** 0.5).to(device))
