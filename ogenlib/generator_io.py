"""A generator in one safetensors file: tensors, with the settings as JSON in its header.

The file holds the bank of known classes too, so that a loaded generator synthesizes the same rows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ogenlib.generators import ClassConditionalGenerator
from ogenlib.utils.files import atomic_write

KEY = "generator"


def save_generator(generator: ClassConditionalGenerator, path: str | os.PathLike[str]) -> None:
    """Write `generator.state()` to `path`, whole or not at all; tensors go to the CPU.

    Raises:
        TypeError: not a generator.
        ValueError: the generator was not fitted.
    """
    if not isinstance(generator, ClassConditionalGenerator):
        raise TypeError(f"a {type(generator).__name__} is not a generator; make one with fit_generator(...)")
    generator.require_known()
    tensors, settings = generator.state()
    with atomic_write(path) as temporary:
        save_file({k: v.cpu() for k, v in tensors.items()}, temporary, metadata={KEY: json.dumps(settings)})


def load_generator(path: str | os.PathLike[str], device: str = "cpu") -> ClassConditionalGenerator:
    """The generator that `save_generator` wrote, in eval mode on `device`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a generator's file, one of another format, or a damaged one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no generator at {path}; save_generator(generator, path) writes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            tensors = {k: file.get_tensor(k) for k in file.keys()} if header else {}  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or damaged ({error}); save the generator again") from error
    if header is None:
        raise ValueError(f"{path} is a file of tensors, not of a generator; save_generator(generator, path) writes one")
    try:
        return ClassConditionalGenerator.from_state(tensors, json.loads(header)).to(device)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a whole generator: {error}; save it again") from error
