"""What a pickle describes, found by reading its opcodes and never by running it.

A pickle is a program for a machine with a stack. This one knows the few opcodes that torch writes, and makes
nothing but containers, numbers, texts and descriptions of tensors: it has no way to import or call anything. What it
does not know is refused by name, so a file is either understood or not opened.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from ogenlib.towers.archive import Unreadable

MAX_BYTES = 16 * 2**20  # of a program; that of OpenAI's largest CLIP has less than one
MAX_STEPS = 1_000_000
MAX_RANK = 16
_LARGEST_KEY = 2**31  # numbers below have different hashes, so no dictionary gets slow

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """`count` numbers in the record ``data/KEY``."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor: a view of a storage, inside its bounds and with no number in it twice."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """Something that the program would import."""

    path: str


@dataclass(eq=False)
class Thing:
    """An object of a class whose code lies in the archive: what it holds, `state`, and none of what it does."""

    path: str
    state: Any = None


def read_program(program: bytes) -> Any:
    """The value that a pickle ends with.

    Raises:
        Unreadable: an opcode or a name that torch does not write, values that do not fit them, or too many of them.
    """
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if step >= MAX_STEPS:
                raise Unreadable(f"its program has more than {MAX_STEPS} steps")
            machine.run(opcode.name, argument)
    except Unreadable:
        raise
    except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
        raise Unreadable(f"its program is damaged: {str(error)[:80]}") from error
    if len(machine.stack) != 1 or machine.below:
        raise Unreadable("its program does not end with one value")
    return machine.stack[0]


class _Machine:
    """`stack` above the last mark, the stacks `below` older marks, and the values that the program gave a number."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _IGNORED:
            return
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _ARGUMENTS:
            self.stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        else:
            raise Unreadable(f"its program has the opcode {opcode}, which torch does not write")

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def tuple_above_mark(self, _: Any) -> None:
        items = tuple(self.above_mark())
        self.stack.append(items)

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("it takes more values than there are")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def extend(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("it appends to what is no list")
        target.extend(items)

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int) or (isinstance(key, int) and abs(key) >= _LARGEST_KEY):
                raise TypeError("a dictionary's key is neither a text nor a small number")
            target[key] = value

    def name(self, argument: str) -> None:
        self.stack.append(_known(argument.replace(" ", ".")))

    def call(self, _: Any) -> None:
        name, arguments = self.last(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError("it calls what is no name")
        if name.path.startswith("__torch__."):
            self.stack.append(Thing(name.path))
        elif name.path in _CALLS:
            self.stack.append(_CALLS[name.path](*arguments))
        else:
            raise Unreadable(f"its program calls {name.path!r}, which torch does not do")

    def build(self, _: Any) -> None:
        (state,) = self.last(1)
        target = self.stack[-1]
        if isinstance(target, Thing):
            target.state = state
        elif not isinstance(target, dict):  # a state dict carries the versions of its modules: of no use here
            raise TypeError("it fills what is no object")

    def storage(self, _: Any) -> None:
        (given,) = self.last(1)
        if not isinstance(given, tuple) or len(given) != 5:
            raise TypeError("it refers to what is no storage")
        kind, name, key, _, count = given
        dtype = DTYPES.get(name.path.removeprefix("torch.")) if isinstance(name, Name) else None
        if kind != "storage" or dtype is None or not isinstance(key, str) or not _is_size(count):
            raise TypeError("it refers to what is no storage of numbers")
        self.stack.append(Storage(key, dtype, count))


def _known(path: str) -> Name:
    if not path.startswith("__torch__.") and path not in _CALLS and path not in _NAMES:
        raise Unreadable(f"its program names {path[:80]!r}, which is no part of a state dict")
    return Name(path)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
    """What torch rebuilds a tensor from."""
    sizes = isinstance(shape, tuple | list) and isinstance(stride, tuple | list) and len(shape) == len(stride)
    fits = isinstance(storage, Storage) and sizes and len(shape) <= MAX_RANK
    if not fits or not all(map(_is_size, (offset, *shape, *stride))):
        raise TypeError("a tensor's sizes are no numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if prod(shape) and (last >= storage.count or prod(shape) > storage.count):
        raise Unreadable("a tensor reaches beyond its record")
    return Stored(storage, offset, tuple(shape), tuple(stride))


def _same(value: Any = (), *_: Any) -> Any:
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


_IGNORED = ("PROTO", "STOP")
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict,
}  # fmt: skip
_ARGUMENTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES")
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark, "TUPLE": _Machine.tuple_above_mark,
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.last(3))),
    "APPEND": lambda m, _: m.extend(m.last(1)), "APPENDS": lambda m, _: m.extend(m.above_mark()),
    "SETITEM": lambda m, _: m.set_items(m.last(2)), "SETITEMS": lambda m, _: m.set_items(m.above_mark()),
    "GLOBAL": _Machine.name, "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call, "BUILD": _Machine.build, "BINPERSID": _Machine.storage,
}  # fmt: skip
_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _same,
    "collections.OrderedDict": lambda: {},
    "torch.Size": _same,
    "torch.device": lambda *place: place,
    **{f"torch.jit._pickle.{name}": _same for name in (
        "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")},
}  # fmt: skip
_NAMES = frozenset([f"torch.{name}" for name in DTYPES] + [str(dtype) for dtype in DTYPES.values()])
