"""A host in a folder: ``host.safetensors`` and ``run.json``, written here and opened again by `ogenlib.runs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import NotRequired, TypedDict

from ogenlib.utils.documents import write_document
from ogenlib.utils.tensors import write_tensors

if TYPE_CHECKING:
    from ogenlib.hosts.base import Host

FORMAT = "ogenlib.run/1"
CARD, HOST, GENERATOR = "run.json", "host.safetensors", "generator.safetensors"
EVIDENCE = "evidence.safetensors"
AGAIN = "train and save the run again"


class Fingerprint(TypedDict):
    """Of a backbone; `ClipLike.fingerprint` says what the fields are."""

    name: str
    pretrained: str | None
    weights_hash: str
    quick_gelu: bool
    embed_dim: int
    preprocess: dict[str, Any]


class OGENCard(TypedDict):
    """As `OGEN.card` writes it."""

    preset: str
    settings: dict[str, Any]
    templates: list[str]
    new_names_known_in_training: bool
    other_names: list[str]


class RunCard(TypedDict):
    """``run.json``.

    config: what the method is built with. files: digests of the run's other files, which belong to this card alone.
    extra: facts that nothing is built from.
    """

    format: str
    method: str
    config: dict[str, Any]
    ogen: NotRequired[OGENCard | None]
    names: list[str]
    backbone: Fingerprint
    precision: str
    extra: dict[str, Any]
    files: NotRequired[dict[str, str]]


def save_run(host: Host, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write the host's tensors, what a wrapper keeps beside them, then ``run.json``, which makes the folder a run.

    Args:
        extra: JSON-able facts to keep beside it (protocol, history).

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = host.config()
    ogen = config.pop("ogen", None)
    files = {HOST: write_tensors(folder / HOST, host.inner.state_dict(), {"format": FORMAT})}
    for name in (GENERATOR, EVIDENCE):
        (folder / name).unlink(missing_ok=True)  # of a run that was saved here before
    files |= host.write_beside(folder)
    record = {
        "format": FORMAT,
        "method": host.info.name,
        "config": config,
        "ogen": ogen,
        "names": list(host.names),
        "backbone": host.clip.fingerprint(),
        "precision": host.clip.precision,
        "files": files,
        "extra": dict(extra or {}),
    }
    write_document(folder / CARD, record)
    return folder
