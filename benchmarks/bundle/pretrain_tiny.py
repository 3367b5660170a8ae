"""Train ogen-tiny, the small CLIP that ships with the library.

    python -m benchmarks.bundle.pretrain_tiny --work runs/ogen-tiny --steps 5000
    python -m benchmarks.bundle.pretrain_tiny --work runs/ogen-tiny --export ogenlib/towers/ogen_tiny

An ordinary open_clip model (native VisionTransformer and causal text tower) trained contrastively on the
six *pretraining* icon sets of the emoji bundle and nothing else; the other six sets stay unseen. A run
continues from its last checkpoint; the same seed gives the same batches. Progress goes to the terminal
and to ``log.jsonl``.

What makes two cores enough: bf16 matrix products, attention by explicit products (the fused kernel's
backward is five times slower on 37 tokens), Muon on the matrices, a mimetic start (Trockman & Kolter 2023,
https://arxiv.org/abs/2305.09828), and the names of all concepts outside the batch as extra negatives.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from benchmarks.bundle.drawing_styles import restyle, warp
from benchmarks.common.options import parser_of
from ogenlib.data.emoji import PRETRAINING_SETS, UNSEEN_SETS, Concept, concepts, open_drawing

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "layers": 6, "width": 192, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
# Kinds of things are named often at first and rarely later: a model that knows them by heart would leave a
# few-shot benchmark on kinds nothing to learn.
KINDS_UNTIL = 0.34  # of the steps
MEAN, STD = (0.8, 0.78, 0.75), (0.32, 0.32, 0.35)  # of the pretraining images
PREPROCESS = {
    "size": [48, 48], "mode": "RGB", "mean": list(MEAN), "std": list(STD), "interpolation": "bicubic",
    "resize_mode": "shortest", "fill_color": 255,
}  # fmt: skip
TEMPLATES = [
    "{}", "{}.", "a {}", "a picture of a {}", "an icon of a {}.", "an icon of a {}", "a drawing of a {}",
    "an emoji of a {}.", "{} emoji", "{} icon", "the {} symbol", "a photo of a {}.", "clip art of a {}",
    "a small picture of the {}.", "this is a {}", "a {} sign", "image of {}", "a cartoon {}",
]  # fmt: skip


def read_set(name: str) -> tuple[Tensor, Tensor]:
    """Images `(N, 3, 64, 64)` uint8 and their concept indices `(N,)`."""
    drawn = [(i, draw) for i, c in enumerate(concepts()) if (draw := open_drawing(name, c.id)) is not None]
    images = torch.from_numpy(np.stack([np.asarray(draw()) for _, draw in drawn]))
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor([i for i, _ in drawn])


def phrase(subgroup: str) -> str:
    """A subgroup as words: 'animal-mammal' -> 'mammal animal'."""
    return " ".join(reversed(subgroup.split("-")))


def caption(concept: Concept, generator: torch.Generator, kinds: bool) -> tuple[str, bool]:
    """A random caption and whether it names only the kind of thing (the subgroup).

    kinds: name kinds often; otherwise rarely.
    """

    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    kind, template = float(torch.rand(1, generator=generator)), TEMPLATES[below(len(TEMPLATES))]
    tags = concept.tags
    if kind < (0.08 if kinds else 0.02):
        return template.format(phrase(concept.subgroup)), True
    if kind < 0.22 and tags:
        return template.format(tags[below(len(tags))]), False
    if kind < 0.36 and tags:
        return f"{concept.name}, {tags[below(len(tags))]}", False
    if kind < 0.44 and kinds:
        return f"{template.format(concept.name)}, a {phrase(concept.subgroup)}", False
    return template.format(concept.name), False


def mimetic_(model: CLIP, generator: torch.Generator) -> None:
    """Give attention the query-key and value-projection correlations that trained transformers have."""
    for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
        attention = block.attn
        d, heads = attention.embed_dim, attention.num_heads
        k = d // heads
        with torch.no_grad():
            weight = attention.in_proj_weight
            for h in range(heads):
                noise = torch.randn(d, d, generator=generator) / math.sqrt(d)
                u, s, vt = torch.linalg.svd(0.7 * noise + 0.7 * torch.eye(d))
                root = s[:k].sqrt()
                weight[h * k : (h + 1) * k] = (u[:, :k] * root).T
                weight[d + h * k : d + (h + 1) * k] = vt[:k] * root[:, None]
            noise = torch.randn(d, d, generator=generator) / math.sqrt(d)
            u, s, vt = torch.linalg.svd(0.4 * noise - 0.4 * torch.eye(d))
            weight[2 * d :] = s.sqrt()[:, None] * vt
            attention.out_proj.weight.copy_(u * s.sqrt())
    with torch.no_grad():
        side = model.visual.grid_size[0]
        width = model.visual.positional_embedding.shape[1]
        model.visual.positional_embedding[1:] = 0.1 * sincos(side, width)


def sincos(side: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions, `(side * side, width)`."""
    rates = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    line = torch.arange(side)[:, None] * rates
    axis = torch.cat([line.sin(), line.cos()], 1)
    rows = axis[:, None].expand(side, side, -1)
    columns = axis[None].expand(side, side, -1)
    return torch.cat([rows, columns], -1).reshape(side * side, width)


def optimizers(model: CLIP) -> list[torch.optim.Optimizer]:
    """Muon on the hidden matrices, AdamW on everything else."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and "resblocks" in name else rest).append(p)
    return [
        torch.optim.Muon(matrices, lr=2e-3, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def positives(concept: Tensor, subgroup: Tensor, general: Tensor) -> Tensor:
    """`(B, B)` image-text matches: own concept, or a caption that names the image's subgroup."""
    same = concept[:, None] == concept[None]
    return same | ((subgroup[:, None] == subgroup[None]) & general[None])


def contrastive(z: Tensor, w: Tensor, names: Tensor, scale: Tensor, match: Tensor, outside: Tensor) -> Tensor:
    """Both directions with several positives; `names` `(C, D)` are extra negatives where `outside` `(B, C)`."""
    logits = scale * z @ w.T
    extra = (scale * z @ names.T).masked_fill(~outside, -torch.inf)
    target = match.float()
    rows = torch.cat([logits, extra], 1).log_softmax(1)[:, : len(w)]
    to_text = -(rows * target).sum(1) / target.sum(1)
    to_image = -(logits.log_softmax(0) * target).sum(0) / target.sum(0)
    return (to_text.mean() + to_image.mean()) / 2


def normalize(x: Tensor) -> Tensor:
    return (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)


@torch.no_grad()
def encode_names(model: CLIP, tokenizer: Any, names: list[str]) -> Tensor:
    """Unit text features `(C, D)`."""
    parts = [
        model.encode_text(tokenizer(names[i : i + 256]), normalize=True).float() for i in range(0, len(names), 256)
    ]
    return torch.cat(parts)


@torch.no_grad()
def zero_shot(model: CLIP, tokenizer: Any) -> dict[str, Any]:
    """Top-1 (percent) of each unseen set among all concepts, and the mean over the groups of top-1 in the group."""
    model.eval()
    groups = sorted({c.group for c in concepts()})
    group = torch.tensor([groups.index(c.group) for c in concepts()])
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        w = encode_names(model, tokenizer, [f"an icon of a {c.name}." for c in concepts()])
        result = {}
        for name in UNSEEN_SETS:
            images, labels = read_set(name)
            small = F.interpolate(images.float() / 255, size=48, mode="bicubic", antialias=True).clamp(0, 1)
            z = torch.cat([model.encode_image(normalize(part), normalize=True) for part in small.split(256)])
            similarity = z @ w.T
            inside = similarity.masked_fill(group[None] != group[labels][:, None], -torch.inf)
            hit = (inside.argmax(1) == labels).float()
            result[name] = {
                "all": 100 * (similarity.argmax(1) == labels).float().mean().item(),
                "groups": 100 * sum(hit[group[labels] == g].mean().item() for g in range(8)) / 8,
            }
    model.train()
    return result


def export(model: CLIP, folder: Path) -> None:
    """Write open_clip's ``local-dir`` format; half precision, since fp16 rounding is below any accuracy."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})


def save_checkpoint(path: Path, model: CLIP, opts: list[torch.optim.Optimizer], step: int) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step}, temporary)
    os.replace(temporary, path)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the log")
    parser.add_argument("--steps", type=int, default=5000, help="optimizer steps (default 5000)")
    parser.add_argument("--batch", type=int, default=256, help="images a step (default 256)")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and batches (default 0)")
    parser.add_argument("--check-every", type=int, default=1000, help="steps between zero-shot checks")
    parser.add_argument("--stop-at", type=int, default=None, help="stop early at this step (for trials)")
    parser.add_argument("--export", type=Path, default=None, help="only write the model folder from --work")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    model = CLIP(**MODEL)
    start = torch.Generator().manual_seed(args.seed)
    mimetic_(model, start)
    opts = optimizers(model)
    step, last = 0, args.work / "checkpoint.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        step = state["step"]
    if args.export:
        return export(model, args.export)

    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    every = concepts()
    subgroups = sorted({c.subgroup for c in every})
    subgroup = torch.tensor([subgroups.index(c.subgroup) for c in every])
    table = torch.full((len(every), len(PRETRAINING_SETS)), -1)
    images, offset = [], 0
    for column, name in enumerate(PRETRAINING_SETS):
        pictures, labels = read_set(name)
        table[labels, column] = torch.arange(offset, offset + len(labels))
        images.append(pictures)
        offset += len(labels)
    pictures = torch.cat(images)
    drawn = (table >= 0).any(1).nonzero().flatten()
    plain = [c.name for c in every]

    base = [group["lr"] for opt in opts for group in opt.param_groups]
    names = torch.zeros(len(every), 128)
    began, log = time.time(), (args.work / "log.jsonl").open("a", encoding="utf-8")
    bar = tqdm(initial=step, total=args.steps, mininterval=5)
    end = min(args.steps, args.stop_at or args.steps)
    average = 0.0
    while step < end:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        picked = drawn[torch.randperm(len(drawn), generator=g)[: args.batch]]
        choice = torch.rand(len(picked), table.shape[1], generator=g).masked_fill(table[picked] < 0, -1)
        rows = table[picked].gather(1, choice.argmax(1, keepdim=True)).flatten()
        x = normalize(warp(restyle(pictures[rows].float() / 255, g), 48, g))
        kinds = step < KINDS_UNTIL * args.steps
        texts = [caption(every[i], g, kinds) for i in picked.tolist()]
        general = torch.tensor([flag for _, flag in texts])
        ids = tokenizer([text for text, _ in texts])

        factor = min(1.0, (step + 1) / 150) * (1 - max(0.0, (step / args.steps - 0.3) / 0.7)) + 1e-3
        for group, lr in zip((g for opt in opts for g in opt.param_groups), base, strict=True):
            group["lr"] = lr * factor
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            if step % 50 == 0 or step == 0 or not names.any():
                names = encode_names(model, tokenizer, plain)
            z = model.encode_image(x, normalize=True).float()
            w = model.encode_text(ids, normalize=True).float()
        outside = picked[:, None] != torch.arange(len(every))[None]
        loss = contrastive(
            z, w, names, model.logit_scale.exp().clamp(max=100.0), positives(picked, subgroup[picked], general), outside
        )
        if not torch.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is {loss.item()}; lower the learning rates")
        for opt in opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        step += 1
        average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
        bar.update()
        if step % 100 == 0 or step == end:
            save_checkpoint(last, model, opts, step)
            bar.set_postfix(loss=f"{average:.3f}")
        if step % args.check_every == 0 or step == end:
            row = {
                "step": step,
                "loss": round(average, 4),
                "scale": round(model.logit_scale.exp().item(), 2),
                "seconds": round(time.time() - began),
                "zero_shot": {
                    s: {k: round(v, 2) for k, v in r.items()} for s, r in zero_shot(model, tokenizer).items()
                },
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
    digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()
    bar.close()
    print(f"finished at step {step}; weights {digest[:16]}; write them with --export FOLDER")


if __name__ == "__main__":
    main()
