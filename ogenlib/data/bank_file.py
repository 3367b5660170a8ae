"""The file of a feature bank: a header, and tensors that are checked against it when the file is opened.

Notation: `N` images, `V` views, `C` classes, `D` embedding.
"""

from __future__ import annotations

import json
import os
from typing import Any, TypedDict

import torch
from torch import Tensor

from ogenlib.utils.documents import DamagedFile, conform, parse
from ogenlib.utils.tensors import open_tensors

FORMAT = "ogenlib.bank/1"
WHAT, FIX = "a feature bank", "make it anew with FeatureBank.extract(..., path=..., overwrite=True)"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_TENSORS = ("features", "labels", "domain", "keys")


class _Header(TypedDict):
    format: str
    classnames: list[str]
    domains: list[str]
    fingerprint: dict[str, Any]
    skipped: list[dict[str, str]]


class _Data(TypedDict, total=False):
    selected: list[str]


class _Fingerprint(TypedDict, total=False):
    """What of a fingerprint is looked into; the rest is only compared."""

    backbone: dict[str, Any]
    data: _Data


def pack_texts(texts: list[str]) -> Tensor:
    """Texts as bytes of JSON: safetensors limits its header to 100 MB, which a million keys would reach."""
    return torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)


def check_fingerprint(fingerprint: dict[str, Any], path: str | os.PathLike[str], what: str, fix: str) -> dict[str, Any]:
    """The same; DamagedFile where the parts that are looked into are of other types."""
    conform(fingerprint, _Fingerprint, path, f"{what} with a fingerprint", fix)
    return fingerprint


def read_bank(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a `FeatureBank`; features are mapped from the file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: no bank, or one whose header and tensors do not go together, or not with its digest.
    """
    file = open_tensors(path, what=WHAT, fix=FIX)
    written = file.header("bank", WHAT, FIX)
    version = written.get("format") if isinstance(written, dict) else None
    if version != FORMAT:
        raise DamagedFile(f"{path} is no feature bank of format {FORMAT} (its format is {version!r}); {FIX}")
    header: _Header = conform(written, _Header, path, WHAT, FIX)
    tensors = file.tensors
    fault = _fault(tensors, len(header["classnames"]), len(header["domains"]))
    if fault:
        raise DamagedFile(f"{path} is no feature bank: {fault}; {FIX}")
    keys = conform(parse(tensors["keys"].numpy().tobytes(), path, WHAT, FIX), list[str], path, "list of keys", FIX)
    if len(keys) != len(tensors["labels"]):
        raise DamagedFile(f"{path} is no feature bank: {len(keys)} keys for {len(tensors['labels'])} images; {FIX}")
    return {
        "features": tensors["features"],
        "labels": tensors["labels"],
        "classnames": tuple(header["classnames"]),
        "domains": [header["domains"][i] for i in tensors["domain"].tolist()],
        "keys": keys,
        "fingerprint": check_fingerprint(header["fingerprint"], path, WHAT, FIX),
        "skipped": header["skipped"],
    }


def _fault(tensors: dict[str, Tensor], classes: int, domains: int) -> str:
    """What does not fit of names, types, shapes and ranges; "" if all does."""
    missing = [name for name in _TENSORS if name not in tensors]
    if missing:
        return f"it lacks the tensors {', '.join(missing)}"
    features, labels, domain, keys = (tensors[name] for name in _TENSORS)
    if features.dtype not in FLOATS or features.ndim != 3:
        return f"features are {tuple(features.shape)} of {features.dtype}, and should be (N, V, D) of a float type"
    if labels.dtype != torch.int64 or domain.dtype != torch.int32 or keys.dtype != torch.uint8 or keys.ndim != 1:
        return f"labels, domains and keys are {labels.dtype}, {domain.dtype} and {keys.dtype} {tuple(keys.shape)}"
    if not labels.shape == domain.shape == features.shape[:1]:
        shapes = f"{tuple(labels.shape)} labels and {tuple(domain.shape)} domains"
        return f"{len(features)} features have {shapes}"
    for name, numbers, count in (("label", labels, classes), ("domain", domain, domains)):
        outside = numbers[(numbers < 0) | (numbers >= count)]
        if len(outside):
            return f"the {name} {int(outside[0])} is out of range: there are {count} names of {name}s"
    return ""
