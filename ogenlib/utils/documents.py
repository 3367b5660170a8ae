"""JSON files: one reader that checks what it reads, and documents that carry a digest of what they say.

A *document* is a JSON object with ``"sha256"`` among its keys: the SHA-256 of everything else in it. It tells damage
and edits, not an attacker, who can compute it too; `ogenlib.utils.tensors` does the same for tensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from ogenlib.utils.files import DamagedFile, atomic_write, check_file

_log = logging.getLogger(__name__)
DIGEST = "sha256"
MAX_BYTES = 2**30  # of a JSON file: a Karpathy split of COCO has 144 MB
UNSEALED = "%s has no digest: it was written before ogenlib wrote digests, so nothing can tell whether it was changed"
T = TypeVar("T")


def read_json(path: str | os.PathLike[str], kind: type[T] | Any = Any, *, what: str, fix: str) -> Any:
    """The value of a JSON file, checked against a type.

    Args:
        kind: what it must be, as `msgspec.convert` takes it: a `TypedDict`, a dataclass, ``dict[str, list[str]]``.
            Keys that a `TypedDict` does not have are left out.
        what: of a message, what the file should be: "a saved run".
        fix: of a message, what the reader can do: "train it again".

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: not a file, too large, no UTF-8, no JSON (NaN and infinities are none), nested too deep, or of
            another shape than `kind`.
    """
    return conform(_parse(path, what, fix), kind, path, what, fix)


def read_document(path: str | os.PathLike[str], kind: type[T], *, what: str, fix: str) -> T:
    """A JSON object checked against its digest, then against a type; see `read_json`.

    A document without a digest opens with a logged warning.

    Raises:
        FileNotFoundError, DamagedFile: as `read_json`, and contents that are not those that were sealed.
    """
    value = _parse(path, what, fix)
    content = conform(unsealed(value, path, what=what, fix=fix), kind, path, what, fix)
    if DIGEST not in value:
        _log.warning(UNSEALED, path)
    return cast(T, content)


def unsealed(
    value: Any, path: str | os.PathLike[str], *, what: str, fix: str, required: bool = False
) -> dict[str, Any]:
    """A JSON object out of the file `path`, checked against its digest and without it.

    Args:
        required: refuse an object without a digest.

    Raises:
        DamagedFile: no object, or contents that are not those that were sealed.
    """
    if not isinstance(value, dict):
        raise DamagedFile(f"{path} cannot be read as {what}: it holds a JSON {_name(value)}, not an object; {fix}")
    content = {key: entry for key, entry in value.items() if key != DIGEST}
    if (required or DIGEST in value) and value.get(DIGEST) != digest_of(content):
        raise DamagedFile(f"{path} was changed after it was written: its digest does not fit what it says; {fix}")
    return content


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON-able value, whole or not at all; ValueError for numbers that JSON does not have."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_document(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, whole or not at all."""
    plain = json.loads(json.dumps(dict(document), allow_nan=False))
    plain.pop(DIGEST, None)
    write_json(path, {**plain, DIGEST: digest_of(plain)})


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 in hex of a JSON object, whatever the order of its keys and the spaces in its file."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def conform(value: Any, kind: Any, path: str | os.PathLike[str], what: str, fix: str) -> Any:
    """`value` as `kind`; DamagedFile with the place that does not fit."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise DamagedFile(f"{path} cannot be read as {what}: {error}; {fix}") from error


def parse(text: str | bytes, path: str | os.PathLike[str], what: str, fix: str) -> Any:
    """The value of JSON that came out of the file `path`; DamagedFile for what is none."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise DamagedFile(f"{path} cannot be read as {what}: its JSON is nested too deep; {fix}") from error
    except ValueError as error:  # also what is no UTF-8, and numbers with thousands of digits
        raise DamagedFile(f"{path} cannot be read as JSON ({error}), and should be {what}; {fix}") from error


def _parse(path: str | os.PathLike[str], what: str, fix: str) -> Any:
    check_file(path, what, fix, MAX_BYTES)
    return parse(Path(path).read_bytes(), path, what, fix)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number")


def _name(value: Any) -> str:
    names = {list: "list", str: "text", bool: "truth value", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
