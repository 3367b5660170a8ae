"""Reading ``results.json``: a document ``ogenlib.results/1`` that is what its types say."""

from __future__ import annotations

import os
from typing import cast

from ogenlib.results.types import Results
from ogenlib.utils.documents import conform, read_document

WHAT = "results of a benchmark (ogenlib.results/1)"
FIX = "name a results.json that ogen bench wrote"


def read_results(path: str | os.PathLike[str]) -> Results:
    """The whole document of a ``results.json``, with what the types do not name.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: no JSON, changed after it was written, or a part of it is missing or of another type.
    """
    document = read_document(path, dict[str, object], what=WHAT, fix=FIX)
    conform(document, Results, path, WHAT, FIX)  # its copy lacks what no type names, such as a protocol's own lines
    return cast(Results, document)
