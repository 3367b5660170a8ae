"""What comes from the Hugging Face hub or a server: fetched only where the caller allows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip.factory
import open_clip.pretrained
from huggingface_hub import constants


@contextmanager
def fetching(allowed: bool) -> Iterator[None]:
    """Keep everything that opens models in this process from the network inside the block, unless `allowed`.

    What was fetched before is found in the caches as ever. Other threads are kept from it too, as the libraries have
    one switch for a process.
    """
    if allowed:
        yield
        return
    switches: list[tuple[Any, str, Any]] = [
        (constants, "HF_HUB_OFFLINE", True),
        # open_clip fetches these two without the hub's library.
        (open_clip.pretrained, "download_pretrained_from_url", _fetched_before),
        (open_clip.factory, "SigLipTokenizer", _no_vocabulary),
    ]
    before_5 = sys.modules.get("transformers.utils.hub")
    if hasattr(before_5, "_is_offline_mode"):  # transformers 4 copies the switch when it is imported
        switches.append((before_5, "_is_offline_mode", True))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in switches]
    # The sessions of huggingface_hub before 1.0 are made for a switch and kept.
    forget = getattr(huggingface_hub.utils, "reset_sessions", lambda: None)
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        forget()
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        forget()


def not_here(name: str, what: str, error: BaseException, download: bool) -> FileNotFoundError:
    """The error for a file of `name` that is neither in the cache nor could be fetched."""
    if download:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return FileNotFoundError(f"{name!r}: {what} could not be fetched ({reason})")
    return FileNotFoundError(
        f"{name!r}: {what} is not on this machine, and nothing is fetched unless it is asked for: "
        f"load_backbone({name!r}, ..., download=True), or --download on the command line"
    )


def _fetched_before(url: str, cache_dir: str | None = None) -> str:
    file = Path(cache_dir or "~/.cache/clip").expanduser() / os.path.basename(url)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    return str(file)


def _no_vocabulary(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError("the vocabulary of this tokenizer is fetched anew every time")
