"""Pixels to logits as an ONNX graph with a free batch size, run once by onnxruntime and compared with torch.

Needs the extra ``onnx``: ``pip install 'ogenlib[onnx]'``.

Notation: `B` images, `C` classes, `D` embedding.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ogenlib.export.open_clip import card, digests, obstacle
from ogenlib.hosts import Batch, Host
from ogenlib.runs.saved import fixed_weights, names_for
from ogenlib.towers import Backbone
from ogenlib.utils.documents import write_document
from ogenlib.utils.files import atomic_folder, refuse_existing

ONNX_FORMAT = "ogenlib.onnx/1"
ONNX_FILE, ONNX_CARD = "classifier.onnx", "classifier.json"
TOLERANCE = 1e-3  # of the largest logit; fp32 kernels of two runtimes differ by far less
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_ONE_FILE = 1_500_000_000  # bytes of parameters; a protobuf ends at 2 GiB, larger weights get a file of their own
_BATCHES = (2, 1, 3)  # the first is traced


class PixelsToLogits(nn.Module):
    """A host with its names fixed: preprocessed pixels `(B, 3, height, width)` -> logits `(B, C)`, fp32.

    Works for every host on a backbone, whatever it does to the image side or to its class weights.

    Raises:
        ValueError: the host's features come from a table, so there are no pixels to read.
    """

    weights: Tensor | None

    def __init__(self, host: Host, names: Sequence[str] | None = None) -> None:
        super().__init__()
        if not isinstance(host.clip, Backbone):
            raise ValueError(f"{host.clip.name!r} has no image tower; open the run with load_backbone(...)")
        self.names = names_for(host, names)
        self.host = host.eval()
        self.clip = host.clip  # a host holds its backbone outside the module tree
        # Fixed weights leave the text tower out of the graph.
        self.register_buffer("weights", fixed_weights(host, self.names))

    def forward(self, pixels: Tensor) -> Tensor:
        labels = torch.zeros(pixels.shape[0], dtype=torch.long, device=pixels.device)
        z = self.host.image_features(Batch(labels, pixels=pixels))
        weights = self.host.class_weights(self.names, z=z) if self.weights is None else self.weights
        return self.host.logits(z, weights).float()


def export_onnx(host: Host, out: str | os.PathLike[str], names: Sequence[str] | None = None) -> Path:
    """Write `classifier.onnx` (input ``pixels``, output ``logits``) and `classifier.json`.

    Preprocessing is not part of the graph; its settings are in the JSON.

    Args:
        out: a folder that does not exist or is empty; it appears whole or not at all.
        names: of the logits, any names; None for the training names.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        FileExistsError: there is something at `out`.
        ValueError: no backbone, a precision other than fp32, or a host that torch cannot write as a graph.
        RuntimeError: onnxruntime computes other logits than torch.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"ONNX export needs {', '.join(missing)}: pip install 'ogenlib[onnx]'")
    refuse_existing(out)
    if host.clip.precision != "fp32":
        raise ValueError(
            f"the backbone is in {host.clip.precision}; ONNX export takes fp32: "
            f"load_backbone({host.clip.name!r}) without precision"
        )
    model = PixelsToLogits(host, names)
    probes = [_probe(host, size) for size in _BATCHES]
    with atomic_folder(out) as work:
        _trace(model, probes[0], work / ONNX_FILE)
        error = max(_difference(work / ONNX_FILE, model, pixels) for pixels in probes)
        if not error <= TOLERANCE:
            raise RuntimeError(
                f"onnxruntime's logits of {host.info.name} are {error:.2g} away from torch's (of the largest logit; "
                f"{TOLERANCE} is accepted); use og.Classifier.load(RUN), and report the versions in use"
            )
        record = {
            **card(host, names, ONNX_FORMAT),
            "input": "pixels",
            "output": "logits",
            "image_size": list(host.clip.image.image_size),
            "relative_error_against_torch": error,
            "files": digests(work),
        }
        write_document(work / ONNX_CARD, record)
    return Path(out)


def load_onnxruntime() -> Any:
    """The package onnxruntime, with its telemetry off unless ``ORT_DISABLE_TELEMETRY=0`` asks for it.

    By itself its import writes a device id and a queue of events below the user's cache folder, and a thread sends
    them to Microsoft. It reads the variable once, while it is imported, and its own call comes after that; where a
    caller has imported it before, the call is what is left: it keeps back all events but the first.
    """
    os.environ[_NO_TELEMETRY] = os.environ.get(_NO_TELEMETRY) or "1"  # children inherit it
    import onnxruntime

    if os.environ[_NO_TELEMETRY] != "0":
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def _trace(model: PixelsToLogits, pixels: Tensor, path: Path) -> None:
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                model,
                (pixels,),
                str(path),
                dynamo=True,
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
                external_data=size > _ONE_FILE,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        inner = model.host.inner
        why = obstacle(inner) or "its image tower cannot be traced"
        raise ValueError(
            f"{inner.info.name} on {inner.clip.name!r} cannot be written as an ONNX graph ({why}; {reason[:200]}); "
            "og.Classifier.load(RUN) runs it as it is"
        ) from error


def _difference(path: Path, model: PixelsToLogits, pixels: Tensor) -> float:
    """Largest difference of the logits, in parts of the largest logit."""
    session: Any = load_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": pixels.cpu().numpy()})
    with torch.no_grad():
        expected = model(pixels).cpu()
    scale = expected.abs().max().clamp_min(1e-6)
    return float((torch.from_numpy(logits) - expected).abs().max() / scale)


def _probe(host: Host, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    shape = (size, 3, *host.clip.image.image_size)
    return torch.randn(shape, generator=generator).to(host.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns about its own parts; none of it is about the host."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
