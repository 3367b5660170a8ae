"""Time one training step of CoOp, PromptSRC and CoCoOp on ViT-B-16: the textbook loop against ours.

    python -m benchmarks.speed.coop --methods coop --out benchmarks/results/speed.json
    python -m benchmarks.speed.coop --methods promptsrc cocoop --out benchmarks/results/speed-hosts.json

The textbook loops (`textbook.py`) do what the released code does in a step: the image tower on fresh images, the text
tower on all 77 tokens of every class, forward and backward; PromptSRC a frozen pass over the same images besides;
CoCoOp the text tower again for every image. Ours read what is frozen from a view bank and encode the shared prefix
once. Batches are those of the released settings. Weights are random (speed does not depend on them), both sides
compute the same loss, and the script checks that their loss and gradients agree before it times anything. Both sides
alternate in one process; peak memory is the growth of the resident set during one step of each. FLOPs are counted by
torch (matrix products only). Linux only, for the memory.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.markdown import METHOD_NAMES
from benchmarks.common.options import parser_of
from benchmarks.common.resident import clear_mark, status
from benchmarks.common.results_file import write_results
from benchmarks.speed.textbook import CONTEXT, Textbook, TextbookCoCoOp, TextbookPromptSRC
from ogenlib.data.emoji import concepts
from ogenlib.hosts import Batch, CoCoOp, CoOp, PromptSRC
from ogenlib.towers import Backbone, load_backbone

BATCH = {"coop": 32, "promptsrc": 4, "cocoop": 1}  # of the released settings
Cases = dict[str, tuple[Callable[[], Tensor], list[torch.nn.Parameter]]]  # a loss and what it trains


def class_names(count: int) -> list[str]:
    """Real class names of ordinary length."""
    return [c.name for c in concepts() if ":" not in c.name][:count]


def start(count: int, batch: int) -> tuple[Backbone, list[str], Tensor, Tensor, Tensor]:
    """Model, names, pixels `(B, 3, H, W)`, their features `(B, D)` and labels `(B,)`."""
    torch.manual_seed(0)
    clip = load_backbone("ViT-B-16")
    pixels = torch.randn(batch, 3, 224, 224)
    with torch.no_grad():
        z = clip.encode_image(pixels)
    return clip, class_names(count), pixels, z, torch.randint(count, (batch,))


def coop(count: int) -> Cases:
    """Whole step and text side; images from a view bank."""
    clip, names, pixels, z, labels = start(count, BATCH["coop"])
    textbook, ours = Textbook(clip, names), CoOp(clip, names, CONTEXT)
    direction = F.normalize(torch.randn(count, z.shape[1]), dim=-1)
    return {
        "textbook step": (lambda: textbook.loss(pixels, labels), textbook.parameters()),
        "ours step": (lambda: ours.losses(Batch(labels, features=z))["ce"], [ours.context]),
        "textbook text": (lambda: (textbook.class_weights() * direction).sum(), textbook.parameters()),
        "ours text": (lambda: (ours.class_weights() * direction).sum(), [ours.context]),
    }


def cocoop(count: int) -> Cases:
    """Whole step; images from a view bank."""
    clip, names, pixels, z, labels = start(count, BATCH["cocoop"])
    ours = CoCoOp(clip, names, CONTEXT)
    textbook = TextbookCoCoOp(clip, names, ours)
    trained = [ours.context, *ours.down.parameters(), *ours.up.parameters()]
    return {
        "textbook step": (lambda: textbook.loss(pixels, labels), textbook.parameters()),
        "ours step": (lambda: ours.losses(Batch(labels, features=z))["ce"], trained),
    }


def promptsrc(count: int) -> Cases:
    """Whole step; the frozen features of the views were computed before training."""
    clip, names, pixels, z, labels = start(count, BATCH["promptsrc"])
    ours = PromptSRC(clip, names, CONTEXT, templates=f"{CONTEXT} {{}}.")
    textbook = TextbookPromptSRC(clip, names, ours)
    batch = Batch(labels, features=z, pixels=pixels)
    assert ours.deep_context is not None
    return {
        "textbook step": (lambda: textbook.loss(pixels, labels), textbook.parameters()),
        "ours step": (
            lambda: torch.stack(list(ours.losses(batch).values())).sum(),
            [ours.context, ours.deep_context, ours.visual],
        ),
    }


METHODS = {"coop": coop, "promptsrc": promptsrc, "cocoop": cocoop}
NAMES = {"coop": [24, 100, 500], "promptsrc": [24, 100], "cocoop": [24, 100]}


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one forward, backward and update."""
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()
    return time.perf_counter() - began


def agree(cases: Cases) -> None:
    """Stop unless both sides have the same loss and the same gradient of every parameter."""
    sides: list[tuple[float, list[Tensor]]] = []
    for side in ("textbook step", "ours step"):
        loss, parameters = cases[side]
        value = loss()
        sides.append((value.item(), list(torch.autograd.grad(value, parameters))))
    (a, grads_a), (b, grads_b) = sides
    error = max(((x - y).norm() / x.norm()).item() for x, y in zip(grads_a, grads_b, strict=True))
    if abs(a - b) > 1e-4 * abs(a) or not error <= 1e-3:
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


def peak_memory(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Growth of the resident set during one step, MiB (Linux), and the step's seconds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # give back what earlier steps freed, or the step would grow into it unseen
    before = status("VmRSS")
    clear_mark()
    seconds = step(loss, optimizer)
    return max(status("VmHWM") - before, 0.0), seconds


def run_case(method: str, count: int, rounds: int, floor: float) -> list[dict[str, Any]]:
    cases = METHODS[method](count)
    agree(cases)
    optimizers = {name: torch.optim.SGD(parameters, 0.002) for name, (_, parameters) in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for name, (loss, _) in cases.items():  # warm up what is cheap; the rest is long enough
        if name.startswith("ours"):
            step(loss, optimizers[name])
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for name, (loss, _) in cases.items():
            repeats = 5 if name.startswith("ours") else 1
            if name not in memory:
                memory[name], first = peak_memory(loss, optimizers[name])
                seconds[name].append(first)
                repeats -= 1
            seconds[name] += [step(loss, optimizers[name]) for _ in range(repeats)]
    rows = []
    for part in dict.fromkeys(name.split()[1] for name in cases):
        slow, fast = f"textbook {part}", f"ours {part}"
        best = {name: min(seconds[name]) for name in (slow, fast)}
        median = {name: sorted(seconds[name])[len(seconds[name]) // 2] for name in (slow, fast)}
        flops = {name: count_flops(cases[name][0]) for name in (slow, fast)}
        rows.append(
            {
                "case": f"{METHOD_NAMES[method]}, {count} names, {'whole step' if part == 'step' else 'text side'}",
                "method": method,
                "names": count,
                "batch": BATCH[method],
                "textbook_seconds": median[slow],
                "ours_seconds": median[fast],
                "ratio": median[slow] / median[fast],
                "textbook_best_seconds": best[slow],
                "ours_best_seconds": best[fast],
                "textbook_peak_mib": memory[slow],
                "ours_peak_mib": memory[fast],
                "memory_ratio": memory[fast] / memory[slow],
                "flops_textbook": flops[slow],
                "flops_ours": flops[fast],
                "floor_seconds": flops[fast] / floor,
                "over_floor": median[fast] * floor / flops[fast],
                "all_seconds": {name: seconds[name] for name in (slow, fast)},
            }
        )
    return rows


def main() -> None:
    parser = parser_of(__doc__, "speed.json")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="methods (all)")
    parser.add_argument("--names", type=int, nargs="+", default=None, help=f"class counts (default {NAMES})")
    parser.add_argument("--rounds", type=int, default=3, help="alternations (default 3)")
    args = parser.parse_args()
    floor = peak_flops(torch.float32)
    rows = [
        row
        for method in args.methods
        for count in args.names or NAMES[method]
        for row in run_case(method, count, args.rounds if count < 500 else 1, floor)
    ]
    card = {
        "model": "ViT-B-16, random weights",
        "batch": {m: BATCH[m] for m in args.methods},
        "context": CONTEXT,
        "precision": "fp32",
        "peak_gflops_fp32": floor / 1e9,
        "peak_gflops_bf16": peak_flops(torch.bfloat16) / 1e9,
        "rounds": args.rounds,
        "memory": "growth of the resident set during one step, over the loaded model and inputs, MiB",
    }
    write_results(args.out, "ogenlib.speed/1", "speed.coop", card, rows=rows)
    for row in rows:
        print(
            f"{row['case']:<34} {row['textbook_seconds']:8.2f} s {row['ours_seconds']:8.3f} s "
            f"{row['ratio']:6.1f}x  memory {row['memory_ratio']:.3f}  over floor {row['over_floor']:.2f}"
        )


if __name__ == "__main__":
    main()
