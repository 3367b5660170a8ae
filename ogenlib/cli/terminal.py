"""What the command line prints: names of classes and files may hold anything, a terminal must not obey it."""

from __future__ import annotations

import logging
import re

# Controls (escape sequences begin with one), line and paragraph separators, what turns the direction of writing, and
# the halves of characters that stand for bytes of a file name that are no UTF-8. Joiners stay: emoji are made of them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would obey written as Python does: ``\\x1b``, ``\\n``, ``\\u202e``."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """Print lines of text on stdout, each made printable; a name in them must not hold line breaks, see `printable`."""
    print("\n".join(map(printable, text.split("\n"))))


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return printable(" ".join(str(error).split()))


class PrintableFormatter(logging.Formatter):
    """Records on one line each, printable."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
