"""Lists in CSV files: UTF-8, with named columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

Line = tuple[int, dict[str, str]]


def read_table(path: Path, needs: Sequence[str], also: str = "") -> tuple[list[str], list[Line]]:
    """The columns' names in lower case, and every line's number with its texts by column, without outer spaces.

    Args:
        needs: columns that must be there.
        also: of a message, which others may be.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file, no UTF-8 CSV, or one without those columns.
    """
    required = ",".join(needs)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; pass a CSV file with the columns {required}")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; pass a CSV file with the columns {required}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip().casefold() for name in table.fieldnames or ()]
            table.fieldnames = columns
            missing = [name for name in needs if name not in columns]
            if missing:
                raise ValueError(
                    f"{path}: the first line must name the columns {required}{f' (and {also})' if also else ''}, "
                    f"separated by commas; it has no {' or '.join(missing)}, only {columns}"
                )
            lines = [(table.line_num, {k: (v or "").strip() for k, v in row.items() if k in columns}) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is no UTF-8 CSV file ({error}); save it as CSV UTF-8") from error
    return columns, lines
