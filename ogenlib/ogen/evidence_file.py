"""Evidence in one safetensors file: tensors, with names and numbers as JSON in its header."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from ogenlib.generators.density import ClassDensities
from ogenlib.generators.episodes import EvidenceSettings
from ogenlib.generators.mean_map import MeanMap
from ogenlib.ogen.evidence import Evidence
from ogenlib.utils.documents import DamagedFile, conform
from ogenlib.utils.tensors import open_tensors, write_tensors

KEY, SCHEMA = "evidence", "ogenlib.evidence/2"
WHAT, FIX = "a run's evidence", "train and save the run again"


class _Settings(TypedDict):
    schema: str
    names: list[str]
    factor: float
    zero_shot: float
    temperature: float
    slope: float
    ridge: float
    chosen: EvidenceSettings


def save_evidence(evidence: Evidence, path: str | os.PathLike[str]) -> str:
    """Write it to `path`, whole or not at all; tensors go to the CPU. Returns the file's digest."""
    densities, mean_map = evidence.densities, evidence.densities.mean_map
    tensors = {
        "embeddings": mean_map.embeddings,
        "level": mean_map.level,
        "means": densities.means,
        "spread": densities.spread,
        "coefficients": mean_map.coefficients,
        "constant": evidence.constant,
    }
    header = {
        "schema": SCHEMA,
        "names": list(evidence.names),
        "factor": evidence.factor,
        "zero_shot": evidence.zero_shot,
        "temperature": evidence.temperature,
        "slope": mean_map.slope,
        "ridge": mean_map.ridge,
        "chosen": asdict(evidence.chosen),
    }
    return write_tensors(Path(path), tensors, {KEY: json.dumps(header, allow_nan=False)})


def load_evidence(path: str | os.PathLike[str], device: str = "cpu") -> Evidence:
    """What `save_evidence` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: not such a file, or tensors and names that do not belong together.
    """
    opened = open_tensors(path, what=WHAT, fix=FIX)
    header = opened.header(KEY, WHAT, FIX)
    if header is None:
        raise DamagedFile(f"{path} is a file of tensors, not of evidence; {FIX}")
    settings = conform(header, _Settings, path, WHAT, FIX)
    t = {name: tensor.to(device) for name, tensor in opened.tensors.items()}
    shape = t["means"].shape if "means" in t else (0, 0)
    wanted = {
        "embeddings": shape,
        "level": shape[-1:],
        "means": (len(settings["names"]), shape[-1]),
        "spread": (shape[-1], shape[-1]),
        "coefficients": shape,
        "constant": shape[-1:],
    }
    found = {name: tuple(tensor.shape) for name, tensor in t.items()}
    if settings["schema"] != SCHEMA or found != {name: tuple(size) for name, size in wanted.items()} or not all(shape):
        raise DamagedFile(f"{path} does not hold whole evidence of {len(settings['names'])} names; {FIX}")
    mean_map = MeanMap(t["embeddings"], t["level"], t["coefficients"], settings["slope"], settings["ridge"])
    densities = ClassDensities(t["means"], t["spread"], settings["chosen"].shrinkage, mean_map)
    numbers = (settings["factor"], settings["zero_shot"], settings["temperature"])
    if not settings["temperature"] > 0:
        raise DamagedFile(f"{path} has a temperature of {settings['temperature']}; {FIX}")
    return Evidence(tuple(settings["names"]), densities, t["constant"], *numbers, settings["chosen"])
