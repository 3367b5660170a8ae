"""A generator in one safetensors file: tensors, with the settings as JSON in its header.

The file holds the bank of known classes too, so that a loaded generator synthesizes the same features.
"""

from __future__ import annotations

import json
import os
from typing import Any, TypedDict

from ogenlib.generators import ClassConditionalGenerator
from ogenlib.utils.documents import DamagedFile, conform
from ogenlib.utils.tensors import open_tensors, write_tensors

KEY = "generator"
WHAT, FIX = "a generator", "save_generator(generator, path) writes one"


class _Settings(TypedDict):
    """The settings of `generator.state()`."""

    schema: str
    variant: str
    config: dict[str, int | float | str | None]
    training: dict[str, Any]
    history: list[dict[str, int | float]]


def save_generator(generator: ClassConditionalGenerator, path: str | os.PathLike[str]) -> str:
    """Write `generator.state()` to `path`, whole or not at all; tensors go to the CPU. Returns the file's digest.

    Raises:
        TypeError: not a generator.
        ValueError: the generator was not fitted, or its settings hold numbers that are not finite.
    """
    if not isinstance(generator, ClassConditionalGenerator):
        raise TypeError(f"a {type(generator).__name__} is not a generator; make one with fit_generator(...)")
    generator.require_known()
    tensors, settings = generator.state()
    return write_tensors(path, tensors, {KEY: json.dumps(settings, allow_nan=False)})


def load_generator(path: str | os.PathLike[str], device: str = "cpu") -> ClassConditionalGenerator:
    """The generator that `save_generator` wrote, in eval mode on `device`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: not a generator's file, one of another format, or contents that were not written so.
    """
    opened = open_tensors(path, what=WHAT, fix=FIX)
    header = opened.header(KEY, WHAT, FIX)
    if header is None:
        raise DamagedFile(f"{path} is a file of tensors, not of a generator; {FIX}")
    settings = conform(header, _Settings, path, WHAT, FIX)
    try:
        return ClassConditionalGenerator.from_state(opened.tensors, settings).to(device)
    except ValueError as error:
        raise DamagedFile(f"{path} does not hold a whole generator: {error}; save it again") from error
