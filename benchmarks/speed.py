"""Time one CoOp training step on ViT-B-16: the textbook loop against ours.

    python benchmarks/speed.py --out benchmarks/results/speed.json

The textbook loop does what the released CoOp code does in a step: the image tower on 32 fresh images, and the
text tower on all 77 tokens of every class, forward and backward. Ours reads image features from a view bank
and encodes the shared prefix once. Weights are random (speed does not depend on them), both sides compute the
same loss, and the script checks that their loss and gradient agree before it times anything. Both sides
alternate in one process; peak memory is the growth of the resident set during one step of each. FLOPs are
counted by torch (matrix products only). Linux only, for the memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ogenlib import results
from ogenlib.data.emoji import concepts
from ogenlib.files import write_json
from ogenlib.hosts import Batch, CoOp
from ogenlib.towers import Backbone, load_backbone

BATCH = 32
CONTEXT = "a photo of a"


class Textbook:
    """The released CoOp's step, written against open_clip's own modules (mask included)."""

    def __init__(self, clip: Backbone, names: list[str]) -> None:
        self.clip, model = clip, clip.model
        self.ids = clip.tokenizer([f"{CONTEXT} {name}." for name in names])
        with torch.no_grad():
            embedding = model.token_embedding(self.ids)
        self.context = torch.nn.Parameter(embedding[0, 1:5].clone())
        self.prefix, self.suffix = embedding[:, :1], embedding[:, 5:]

    def class_weights(self) -> Tensor:
        model, count = self.clip.model, len(self.ids)
        x = torch.cat([self.prefix, self.context.expand(count, -1, -1), self.suffix], 1)
        x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
        x = model.ln_final(x)[torch.arange(count), self.ids.argmax(-1)] @ model.text_projection
        return F.normalize(x, dim=-1)

    def loss(self, pixels: Tensor, labels: Tensor) -> Tensor:
        z = F.normalize(self.clip.model.encode_image(pixels), dim=-1)
        return F.cross_entropy(self.clip.logit_scale * z @ self.class_weights().T, labels)


def class_names(count: int) -> list[str]:
    """Real class names of ordinary length."""
    return [c.name for c in concepts() if ":" not in c.name][:count]


def build(count: int) -> tuple[Backbone, Textbook, CoOp, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    clip = load_backbone("ViT-B-16")
    names = class_names(count)
    ours = CoOp(clip, names, CONTEXT)
    pixels = torch.randn(BATCH, 3, 224, 224)
    with torch.no_grad():
        z = clip.encode_image(pixels)
    labels = torch.randint(count, (BATCH,))
    return clip, Textbook(clip, names), ours, pixels, z, labels


def step(loss: Callable[[], Tensor], parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one forward, backward and update."""
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()
    return time.perf_counter() - began


def steps(count: int) -> dict[str, tuple[Callable[[], Tensor], torch.nn.Parameter]]:
    """The four things timed: whole step and text side, textbook and ours; each a loss and what it trains."""
    _, textbook, ours, pixels, z, labels = build(count)
    direction = F.normalize(torch.randn(count, z.shape[1]), dim=-1)
    return {
        "textbook step": (lambda: textbook.loss(pixels, labels), textbook.context),
        "ours step": (lambda: ours.losses(Batch(labels, features=z))["ce"], ours.context),
        "textbook text": (lambda: (textbook.class_weights() * direction).sum(), textbook.context),
        "ours text": (lambda: (ours.class_weights() * direction).sum(), ours.context),
    }


def agree(cases: dict[str, tuple[Callable[[], Tensor], torch.nn.Parameter]]) -> None:
    """Stop unless both sides have the same loss and gradient."""
    found: list[tuple[float, Tensor]] = []
    for side in ("textbook step", "ours step"):
        loss, parameter = cases[side]
        parameter.grad = None
        value = loss()
        value.backward()
        assert parameter.grad is not None
        found.append((value.item(), parameter.grad.clone()))
    (a, grad_a), (b, grad_b) = found
    error = ((grad_a - grad_b).norm() / grad_a.norm()).item()
    if abs(a - b) > 1e-4 * abs(a) or error > 1e-3:
        raise SystemExit(f"the sides disagree: losses {a} and {b}, gradients differ by {error:.1e}")


def peak_flops(dtype: torch.dtype, size: int = 4096) -> float:
    """Multiply-adds times two a second of the best of five large matrix products."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def count_flops(loss: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    return int(counter.get_total_flops())


def status(field: str) -> float:
    """A memory field of this process, MiB: VmRSS now, VmHWM the highest since the mark was cleared."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def peak_memory(
    loss: Callable[[], Tensor], parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer
) -> tuple[float, float]:
    """Growth of the resident set during one step, MiB (Linux), and the step's seconds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # give back what earlier steps freed, or the step would grow into it unseen
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    seconds = step(loss, parameter, optimizer)
    return max(status("VmHWM") - before, 0.0), seconds


def run_case(count: int, rounds: int, floor: float) -> list[dict[str, Any]]:
    cases = steps(count)
    agree(cases)
    optimizers = {name: torch.optim.SGD([parameter], 0.002) for name, (_, parameter) in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for name, (loss, parameter) in cases.items():  # warm up what is cheap; the rest is long enough
        if name.startswith("ours"):
            step(loss, parameter, optimizers[name])
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for name, (loss, parameter) in cases.items():
            repeats = 5 if name.startswith("ours") else 1
            if name not in memory:
                memory[name], first = peak_memory(loss, parameter, optimizers[name])
                seconds[name].append(first)
                repeats -= 1
            seconds[name] += [step(loss, parameter, optimizers[name]) for _ in range(repeats)]
    rows = []
    for part in ("step", "text"):
        slow, fast = f"textbook {part}", f"ours {part}"
        best = {name: min(seconds[name]) for name in (slow, fast)}
        median = {name: sorted(seconds[name])[len(seconds[name]) // 2] for name in (slow, fast)}
        flops = {name: count_flops(cases[name][0]) for name in (slow, fast)}
        rows.append({
            "case": f"{count} names, {'whole step' if part == 'step' else 'text side'}", "names": count,
            "textbook_seconds": median[slow], "ours_seconds": median[fast], "ratio": median[slow] / median[fast],
            "textbook_best_seconds": best[slow], "ours_best_seconds": best[fast],
            "textbook_peak_mib": memory[slow], "ours_peak_mib": memory[fast],
            "memory_ratio": memory[fast] / memory[slow],
            "flops_textbook": flops[slow], "flops_ours": flops[fast],
            "floor_seconds": flops[fast] / floor, "over_floor": median[fast] * floor / flops[fast],
            "all_seconds": {name: seconds[name] for name in (slow, fast)},
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"), help="results file")
    parser.add_argument("--names", type=int, nargs="+", default=[24, 100, 500], help="class counts")
    parser.add_argument("--rounds", type=int, default=3, help="alternations (default 3)")
    args = parser.parse_args()
    floor = peak_flops(torch.float32)
    rows = [row for count in args.names for row in run_case(count, args.rounds if count < 500 else 1, floor)]
    document = {
        "schema": "ogenlib.speed/1",
        "protocol": {
            "model": "ViT-B-16, random weights", "batch": BATCH, "context": CONTEXT, "precision": "fp32",
            "peak_gflops_fp32": floor / 1e9, "peak_gflops_bf16": peak_flops(torch.bfloat16) / 1e9,
            "threads": torch.get_num_threads(), "rounds": args.rounds, "versions": results.versions(),
            "git": results.git_revision(), "date": results.now(),
            "memory": "growth of the resident set during one step, over the loaded model and inputs, MiB",
        },
        "rows": rows,
    }  # fmt: skip
    write_json(args.out, document)
    for row in rows:
        print(f"{row['case']:<24} {row['textbook_seconds']:8.2f} s {row['ours_seconds']:8.3f} s "
              f"{row['ratio']:6.1f}x  memory {row['memory_ratio']:.3f}  over floor {row['over_floor']:.2f}")


if __name__ == "__main__":
    main()
