"""Seeded ways of damaging files, and what a value that came out of a file holds, for comparisons."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

Damage = Callable[[bytes, random.Random], bytes]


def flip_bit(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def leave_out(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randint(1, 16) :]


def insert(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + draw.randbytes(draw.randint(1, 16)) + data[start:]


def overwrite(data: bytes, draw: random.Random) -> bytes:
    start, size = draw.randrange(len(data)), draw.randint(1, 16)
    return (data[:start] + b"\0" * size + data[start + size :])[: len(data)]


def repeat(data: bytes, draw: random.Random) -> bytes:
    return data + data[draw.randrange(len(data)) :]


BYTES: tuple[Damage, ...] = (flip_bit, flip_bit, cut, leave_out, insert, overwrite, repeat)


def edit_json(data: bytes, draw: random.Random) -> bytes:
    """One value of a JSON document, at any depth, made another one, left out or moved."""
    document = json.loads(data)
    places = list(_places(document))
    holder, key = draw.choice(places)
    others: list[Any] = [None, -1, 1e9, "", "x", [], {}, True, [[[]]], {"a": None}, 10**30, "../../x", "\x1b[31m"]
    change = draw.randrange(4)
    if change == 0 and isinstance(holder, dict):
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif change == 2 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] += 1
    else:
        holder[key] = draw.choice([other for other in others if other != holder[key]])
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def damages(path: Path, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged versions of a file, each other than the file; half of a JSON file's are edits of its values."""
    data, draw = path.read_bytes(), random.Random(f"{seed}/{path.name}")
    made = 0
    while made < count:
        edit = path.suffix == ".json" and draw.random() < 0.5
        found = edit_json(data, draw) if edit else draw.choice(BYTES)(data, draw)
        if found != data:
            made += 1
            yield found


def content(value: Any) -> Any:
    """What a value holds, for `==`: tensors become type, shape and numbers, mappings keep no order."""
    if isinstance(value, Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().flatten().tolist())
    if isinstance(value, Mapping):
        return {key: content(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(entry) for entry in value]
    return value
