"""One training loop for every host.

Notation: `N` training images, `B` images a step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ogenlib.data import FeatureBank, PixelBank
from ogenlib.hosts import Host
from ogenlib.train.batches import TrainingData, training_data
from ogenlib.train.checkpoint import load_checkpoint, save_checkpoint
from ogenlib.train.config import TrainConfig
from ogenlib.train.param_groups import frozen
from ogenlib.train.sharding import clip_gradients, is_divided, settled
from ogenlib.utils import distributed
from ogenlib.utils.differences import differences
from ogenlib.utils.files import DamagedFile

_log = logging.getLogger(__name__)
DIFFERENCES = 6  # that a refusal names
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of autocast


@dataclass
class History:
    """What happened: one record an epoch with the loss terms, learning rate, seconds and measurements."""

    epochs: list[dict[str, Any]] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        """The values of one entry, for the epochs that have it."""
        return [e[name] for e in self.epochs if name in e]


def learning_rate(epoch: int, config: TrainConfig) -> float:
    """Rate in epoch 1, 2, ...: constant warm-up, then cosine that would reach 0 after the last epoch.

    As the released CoOp code: a warm-up epoch delays nothing, the cosine runs over all epochs.
    """
    done = epoch - 1
    if done < config.warmup_epochs and config.epochs > config.warmup_epochs:
        return config.warmup_lr
    return config.lr * (1 + math.cos(math.pi * done / config.epochs)) / 2


def step_rate(step: int, total: int, config: TrainConfig) -> float:
    """Rate of step 0, 1, ... of `total` under the schedule ``steps``.

    As the released WiSE-FT code: ``lr * (step + 1) / warmup`` for `warmup` steps, then half a cosine over the others,
    which would reach 0 after the last.

    Raises:
        ValueError: the warm-up leaves no step.
    """
    given = config.warmup_steps
    warmup = round(given * total) if 0 < given < 1 else round(given)
    if warmup >= total:
        raise ValueError(
            f"warmup_steps={given:g}: the run has {total} steps in all; take fewer, a share such as 0.1, or more epochs"
        )
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def epoch_seed(seed: int, epoch: int) -> int:
    """63-bit seed of an epoch's generator."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def fit(
    host: Host,
    bank: FeatureBank | PixelBank,
    *,
    config: TrainConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    measure: Callable[[Host, int], dict[str, float]] | None = None,
    progress: bool = False,
    **settings: Any,
) -> History:
    """Train `host` on the images of its own class names in `bank`.

    Args:
        bank: features of any classes, or pixels (`PixelBank`), which a host that changes the image side needs and
            of which any other gets the features; those of `host.names` are selected and relabelled.
        config, settings: a `TrainConfig`, or its fields as keywords (`epochs=50, seed=1`); what neither
            gives is the host's own (`host.train_settings()`) or the default.
        out: folder for a checkpoint after every epoch; a run found there is continued to a bit-identical end.
        measure: called after every epoch with (host, epoch); what it returns joins the history.

    Returns:
        The history, also when the run was finished before; without epochs for a training-free host, which only
        keeps what it needs of the images.

    Raises:
        ValueError: bad settings, a class without images, nothing to train, a bank of another backbone or of
            features where pixels are needed, a pattern of `rates` that decides nothing, a warm-up longer than the run,
            or a checkpoint of other settings.
        FloatingPointError: a loss term or gradient that is not finite, named.
    """
    if config is None:
        config = replace(TrainConfig(), **{**host.train_settings(), **settings})
    elif settings:
        config = replace(config, **settings)
    if not host.trainable() and not host.training_free:
        raise ValueError(f"{host.info.name} has nothing to train")
    data = training_data(host, bank)
    if host.training_free:
        assert data.features is not None  # such a host reads cached features
        host.prepare(data.features, config.epochs, config.seed)
        return History()
    processes = distributed.world()[1]
    if min(config.batch_size, len(data)) < processes:
        raise ValueError(
            f"{processes} processes share batches of {min(config.batch_size, len(data))} images; "
            "use a batch_size of at least one image a process, or fewer processes"
        )
    if settled(host):
        _check_divided(len(data), config, out)
    if config.schedule == "steps":
        step_rate(0, config.epochs * math.ceil(len(data) / config.batch_size), config)  # refuses a long warm-up
    if data.features is not None:  # it is there for every host that prepares anything
        host.prepare(data.features, config.epochs, config.seed)
    host.on_start(config.epochs, math.ceil(len(data) / config.batch_size))
    with frozen(host.trainable(), config.rates) as rates, checkpointing(host, config.grad_checkpointing):
        optimizer = _optimizer(host.trainable(), rates, config)
        return _fit(host, data, config, optimizer, out, measure, progress)


def _fit(
    host: Host,
    data: TrainingData,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    out: str | os.PathLike[str] | None,
    measure: Callable[[Host, int], dict[str, float]] | None,
    progress: bool,
) -> History:
    """All epochs that `out` does not hold yet."""
    # Torch's own first scale, 65536, overflows on prompt gradients and would skip the first steps.
    scaler = torch.amp.GradScaler(host.device.type, init_scale=1024.0, enabled=config.precision == "fp16")
    history, first = History(), 1
    signature = _signature(host, data.bank.fingerprint, config)
    checkpoint = Path(out) / "checkpoint.safetensors" if out is not None else None
    if checkpoint is not None and checkpoint.exists():
        states, meta = load_checkpoint(checkpoint, host)
        _check_signature(checkpoint, meta["signature"], signature)
        try:
            optimizer.load_state_dict(states["optimizer"])
            scaler.load_state_dict(states["scaler"])
            host.load_training_state(states["host"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise DamagedFile(
                f"{checkpoint}: its states are not of this training ({error!r}); delete it to start over"
            ) from error
        history, first = History(meta["history"]), meta["epoch"] + 1
        _log.info("continuing %s after epoch %d", checkpoint, first - 1)

    bar = tqdm(
        range(first, config.epochs + 1),
        desc=f"training {host.info.name}",
        unit="epoch",
        disable=not progress or not distributed.is_main(),
    )
    for epoch in bar:
        began = time.perf_counter()
        _set_rate(optimizer, learning_rate(epoch, config))
        terms = _epoch(host, data, config, epoch, optimizer, scaler)
        host.on_epoch_end(epoch, config.epochs)
        record: dict[str, Any] = {"epoch": epoch, "lr": _rate(optimizer), **terms}
        record["seconds"] = time.perf_counter() - began
        if measure is not None:
            record.update(measure(host, epoch))
        history.epochs.append(record)
        if checkpoint is not None and distributed.is_main():
            meta = {"epoch": epoch, "history": history.epochs, "signature": signature}
            states = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), "host": host.training_state()}
            save_checkpoint(checkpoint, host=host, states=states, meta=meta)
        distributed.barrier()
    return history


def _check_divided(images: int, config: TrainConfig, out: object) -> None:
    """ValueError for what towers divided among processes cannot do."""
    processes = distributed.world()[1]
    if out is not None:
        raise ValueError("no checkpoints of divided towers; leave out= away and save sharding.whole_copy(host)")
    if config.precision == "fp16":
        raise ValueError("precision='fp16' with divided towers; use 'bf16'")
    if 0 < images % config.batch_size < processes:
        raise ValueError(
            f"the last step of an epoch has {images % config.batch_size} images for {processes} processes, which all "
            "have to run divided towers; use another batch_size"
        )


def _optimizer(
    parameters: dict[str, nn.Parameter], rates: dict[str, float], config: TrainConfig
) -> torch.optim.Optimizer:
    """One group of parameters for each factor on the rate; those divided among processes apart from the others."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, factor in rates.items():
        groups.setdefault((factor, is_divided(parameters[name])), []).append(parameters[name])
    grouped: list[dict[str, Any]] = [{"params": p, "factor": factor} for (factor, _), p in groups.items()]
    if config.optimizer == "sgd":
        return torch.optim.SGD(grouped, config.lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(grouped, config.lr, weight_decay=config.weight_decay)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate of parameters with factor 1, as `_set_rate` was last told."""
    group = optimizer.param_groups[0]
    return group["lr"] / group["factor"]


@contextmanager
def checkpointing(host: Host, enabled: bool) -> Iterator[None]:
    """Gradient checkpointing in the towers inside the block, if enabled; off again after it.

    Raises:
        ValueError: the host has no tower that gradients go through.
    """
    parts = host.checkpointed() if enabled else []
    if enabled and not parts:
        raise ValueError(f"{host.info.name} on {host.clip.name!r} has no towers; leave out grad_checkpointing")
    for part in parts:
        part.set_grad_checkpointing(True)
    try:
        yield
    finally:
        for part in parts:
            part.set_grad_checkpointing(False)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _epoch(
    host: Host,
    data: TrainingData,
    config: TrainConfig,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> dict[str, float]:
    """One pass; returns each loss term's mean over the images."""
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch))
    host.train()
    totals: dict[str, float] = {}
    order = torch.randperm(len(data), generator=generator)
    batches = order.split(config.batch_size)
    # Divided towers take the mean of the processes' gradients on their own, whatever the shares of the batch.
    divided, processes = settled(host), distributed.world()[1]
    for step, indices in enumerate(batches):
        if config.schedule == "steps":
            _set_rate(optimizer, step_rate((epoch - 1) * len(batches) + step, config.epochs * len(batches), config))
        mine = distributed.share(torch.arange(len(indices)))
        weight = len(mine) / len(indices)
        batch = data.batch(indices, mine, generator)
        optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        if batch is not None:
            with _autocast(host.device, config.precision):
                terms = host.losses(batch)
            for name, term in terms.items():
                if not torch.isfinite(term):
                    raise FloatingPointError(
                        f"loss term {name!r} is {term.item()} in epoch {epoch}, step {step}; lower lr "
                        f"(now {config.lr}), set clip_grad=1.0, or use precision='bf16' instead of 'fp16'"
                    )
            loss = torch.stack([t.float() for t in terms.values()]).sum()
            scaler.scale(loss * weight * processes if divided else loss).backward()
        _step(host, config, optimizer, scaler, 1 / processes if divided else weight, epoch, step)
        host.on_step_end()
        for name in terms or totals:
            value = float(terms[name].detach()) if terms else 0.0
            totals[name] = totals.get(name, 0.0) + distributed.weighted_sum(value, weight) * len(indices)
    host.eval()
    return {name: total / len(data) for name, total in totals.items()}


def _step(
    host: Host,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    weight: float,
    epoch: int,
    step: int,
) -> None:
    parameters = list(host.trainable().values())
    ordinary = [p for p in parameters if not is_divided(p)]
    distributed.average_gradients(ordinary, weight)
    if config.clip_grad is not None:
        scaler.unscale_(optimizer)
        clip = torch.nn.utils.clip_grad_norm_ if len(ordinary) == len(parameters) else clip_gradients
        norm = clip(parameters, config.clip_grad)
        if not torch.isfinite(norm) and not scaler.is_enabled():
            raise FloatingPointError(f"the gradient is {norm.item()} in epoch {epoch}, step {step}; lower lr")
    scaler.step(optimizer)
    scaler.update()


def _signature(host: Host, made_from: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint must agree on to be continued."""
    return {
        "method": host.info.name,
        "host": host.config(),
        "names": list(host.names),
        "backbone": host.clip.weights_hash,
        "bank": made_from,
        "train": asdict(config),
    }


def _check_signature(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    differing = list(differences(saved, json.loads(json.dumps(now))))
    if differing:
        more = [f"and {len(differing) - DIFFERENCES} more"] if len(differing) > DIFFERENCES else []
        said = "; ".join([*differing[:DIFFERENCES], *more])
        raise ValueError(f"{path} belongs to another run ({said}); use another output folder or delete it")
