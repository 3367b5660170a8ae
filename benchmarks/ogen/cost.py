"""What OGEN costs on `emoji-categories`: seconds a step, seconds before training, and memory, with and without.

    python -m benchmarks.ogen.cost    # writes benchmarks/results/ogen-cost.json

Steps of a host alone and with OGEN are timed in turn in one process, so that both see the same machine; of the
repetitions the median counts. A step is forward, backward and optimizer. Extra memory is what OGEN keeps besides the
host, counted in bytes of its tensors; the peak of a step is that of the autograd graph and is not part of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.options import parser_of
from benchmarks.common.results_file import write_results
from benchmarks.ogen.tasks import StudyTask, emoji_tasks
from benchmarks.ogen.variants import Variant, make_host
from ogenlib.hosts import Batch, Host
from ogenlib.ogen.wrapper import OGEN

CASES: dict[str, dict[str, Any]] = {
    "ogenlib": {}, "ogenlib, one group of names": {"name_groups": 1}, "without teacher": {"teacher": None},
    "paper": {"preset": "paper"}, "released-code": {"preset": "released-code"},
}  # fmt: skip
REPETITIONS, STEPS, BATCH = 15, 40, 32


def stepper(host: Host, task: StudyTask) -> Iterator[float]:
    """Seconds of `STEPS` training steps, again and again."""
    data = task.bank
    host.prepare(data, 50, 1)
    for epoch in range(1, 12):  # past any warm-up
        host.on_epoch_end(epoch, 50)
    optimizer = torch.optim.AdamW(list(host.trainable().values()), 1e-3)
    draws = torch.Generator().manual_seed(0)
    host.train()
    while True:
        began = time.perf_counter()
        for _ in range(STEPS):
            indices = torch.randint(len(data), (BATCH,), generator=draws)
            batch = Batch(data.labels[indices], features=data.view(indices, draws), generator=draws)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(host.losses(batch).values())).sum().backward()
            optimizer.step()
        yield (time.perf_counter() - began) / STEPS


def kept_bytes(model: Host) -> int:
    """Bytes of the tensors OGEN keeps: generator with its bank, synthesized rows, teacher."""
    if not isinstance(model, OGEN):
        return 0
    tensors: list[Tensor] = []
    if model.rows is not None:
        tensors += [*model.rows.generator.state_dict().values()]
        tensors += [] if model.rows.pool is None else [model.rows.pool]
    if model.teacher is not None:
        for epoch in range(12, 51):
            model.on_epoch_end(epoch, 50)
        tensors += [t for t in model.teacher.state_dict().values() if isinstance(t, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    args = parser_of(__doc__, "ogen-cost.json").parse_args()
    task = emoji_tasks([1])[1]
    rows: list[dict[str, Any]] = []
    for host in ("coop", "text_adapter"):
        for name, options in CASES.items():
            models = [make_host(Variant("", host, ogen), task) for ogen in (None, options)]
            began = time.perf_counter()
            models[1].prepare(task.bank, 50, 1)
            before = time.perf_counter() - began
            runs = [stepper(model, task) for model in models]
            times = [[next(run) for run in runs] for _ in range(REPETITIONS)][2:]  # the first two warm up
            alone, added = (statistics.median(column) for column in zip(*times, strict=True))
            rows.append(
                {
                    "host": host,
                    "case": name,
                    "host_seconds": alone,
                    "ogen_seconds": added,
                    "ratio": added / alone,
                    "seconds_before_training": before,
                    "kept_mib": kept_bytes(models[1]) / 2**20,
                }
            )
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    card = {
        "task": task.name,
        "backbone": task.clip.fingerprint(),
        "n_base": len(task.split.base),
        "n_new": len(task.split.new),
        "batch": BATCH,
        "repetitions": REPETITIONS,
        "steps": STEPS,
    }
    write_results(args.out, "ogenlib.cost/1", "ogen.cost", card, rows=rows)


if __name__ == "__main__":
    main()
