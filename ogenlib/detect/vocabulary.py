"""Names to tell known classes from: lists, files, and the nouns of WordNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WORDNET = "oewn:2024"
MAX_BYTES = 2**26  # of a file of names: WordNet's nouns have 2 MB


def read_vocabulary(source: str | Path | Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """Names of a list, or of a file with one a line, each once, in order, without the known ones (in any case).

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file of text, or nothing is left.
    """
    lines = _lines(Path(source)) if isinstance(source, str | Path) else source
    refused = {name.strip().lower() for name in known}
    names: dict[str, str] = {}
    for line in lines:
        name = " ".join(line.replace("_", " ").split())
        if name and name.lower() not in refused:
            names.setdefault(name.lower(), name)
    if not names:
        raise ValueError("the vocabulary holds no name besides the known ones; add names, one a line")
    return list(names.values())


def _lines(path: Path) -> list[str]:
    if not path.is_file():  # a pipe would be waited for
        if path.exists():
            raise ValueError(f"{path} is no file; pass a file with one name a line, or a list of names")
        raise FileNotFoundError(f"no vocabulary at {path}; pass a file with one name a line, or a list of names")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, and a vocabulary {MAX_BYTES} at most; pass a list of names")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8, one name a line") from error


def wordnet_nouns(lexicon: str = WORDNET) -> list[str]:
    """All noun lemmas of a WordNet lexicon that the `wn` package has on disk.

    Raises:
        ImportError: the package is missing.
        ValueError: the lexicon was not downloaded.
    """
    try:
        import wn
    except ImportError as error:
        raise ImportError("the nouns of WordNet need the package wn: pip install 'ogenlib[wordnet]'") from error
    try:
        words = wn.Wordnet(lexicon).words(pos="n")
    except wn.Error as error:
        raise ValueError(
            f"{lexicon} is not on this machine ({error}); download it with: python -m wn download {lexicon}"
        ) from error
    return sorted({word.lemma() for word in words})
