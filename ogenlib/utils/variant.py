"""Which training a row of results is of: a method alone, with OGEN around it, or as a control of what OGEN adds.

A control has no generator and no evidence, so OGEN is worth what it has over the best of them:

- ``zero-shot``: names with training images are scored by the trained host, the others by zero-shot. Nothing is trained.
- ``KL``: the host is trained with the KL divergence to zero-shot on real images, over all names, and nothing else.
- ``KL, zero-shot``: both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ZERO_SHOT, KL = "zero-shot", "KL"
CONTROLS = (ZERO_SHOT, KL, f"{KL}, {ZERO_SHOT}")
_OGEN = "ogen"


class Variant(NamedTuple):
    """A method, whether OGEN is around it, and the control that it is; "" for none."""

    host: str
    ogen: bool = False
    control: str = ""

    @classmethod
    def of(cls, item: Mapping[str, object]) -> Variant:
        """Of a row, or of any other item of a document of results."""
        return cls(str(item.get("host") or "?"), bool(item.get("ogen")), str(item.get("control") or ""))

    @classmethod
    def named(cls, name: object) -> Variant:
        """The variant that `name` is the name of."""
        host, _, rest = str(name).partition("+")
        host, rest = host.strip(), rest.strip()
        return cls(host, True) if rest.lower() == _OGEN else cls(host, False, rest)

    @property
    def name(self) -> str:
        """``coop``, ``coop+ogen`` or ``coop+zero-shot``: how files, tests and the protocol card name it."""
        return "+".join([self.host, *[_OGEN] * self.ogen, *[self.control] * bool(self.control)])

    @property
    def fields(self) -> dict[str, str | bool]:
        """What an item of it says; `control` only where it is one."""
        return {"host": self.host, "ogen": self.ogen, **({"control": self.control} if self.control else {})}


def words_of(control: str) -> tuple[str, str]:
    """What follows a host's name: ` + KL` and `, zero-shot for new names`, or "" for either."""
    parts = [part.strip() for part in control.split(",")] if control else []
    trained = "".join(f" + {part}" for part in parts if part != ZERO_SHOT)
    return trained, ", zero-shot for new names" if ZERO_SHOT in parts else ""
