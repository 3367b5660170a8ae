"""Finding a published dataset below a root, and which of its listed files are there.

Every folder is listed once instead of asking for every file, because shared disks answer slowly.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ogenlib.data.layouts import Layout


@dataclass
class Place:
    """Where a dataset was found.

    home, images: its folder and that of its images; None if not found.
    looked: every folder that was looked at, for messages.
    notes: how the place differs from the published layout.
    """

    root: Path
    home: Path | None = None
    images: Path | None = None
    looked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def locate(layout: Layout, root: str | os.PathLike[str]) -> Place:
    """Look for `layout` below `root`, then in `root` itself.

    Raises FileNotFoundError if `root` is no folder.
    """
    place = Place(Path(root))
    if not place.root.is_dir():
        raise FileNotFoundError(
            f"{place.root}: no such folder; root is the folder that holds {layout.homes[0]}/ and the other datasets"
        )
    homes = [place.root / home for home in layout.homes]
    present = [home for home in homes if home.is_dir()]
    place.looked += [str(home) for home in homes if home not in present]
    for home in [*present, place.root]:
        images = _images(layout, home, place, bare=home != place.root)
        if images is not None:
            place.home, place.images = home, images
            break
    else:
        place.home = present[0] if present else None
    if place.home is not None:
        if place.home != place.root / layout.homes[0]:
            place.notes.append(f"folder is {place.home}, published as {layout.homes[0]}/")
        if place.images is not None and place.images != place.home / layout.images[0]:
            place.notes.append(f"images are in {place.images}, published as {layout.homes[0]}/{layout.images[0]}")
    return place


def _images(layout: Layout, home: Path, place: Place, bare: bool) -> Path | None:
    """The first folder of images that is there. bare: whether `home` itself may be it without further signs."""
    for relative in layout.images:
        folder = home / relative
        place.looked.append(str(folder))
        if folder.is_dir() and (_signs(layout, folder, home) or (bare and (relative != "." or layout.kind == "split"))):
            return folder
    return None


def _signs(layout: Layout, folder: Path, home: Path) -> bool:
    """Whether `folder` looks like this dataset's images."""
    if layout.kind == "split":
        return split_file(layout, home, folder).is_file()
    if layout.kind == "lists":
        return (folder.parent / "variants.txt").is_file()
    if layout.kind == "objectnet":
        return (folder.parent / "mappings").is_dir()
    if layout.kind == "domains":
        return any(domain_folder(folder, name, spellings) for name, spellings in layout.domains.items())
    if layout.kind == "numbered":
        return any(path.name.isdecimal() and path.is_dir() for path in folder.iterdir())
    return all(any(_wordnet_folders(folder / part)) for part in layout.folders.values())


def _wordnet_folders(folder: Path) -> Iterable[Path]:
    return (p for p in folder.iterdir() if is_wordnet(p.name) and p.is_dir()) if folder.is_dir() else ()


def split_file(layout: Layout, home: Path, images: Path) -> Path:
    """Where the split file is: in home, beside the images, or beside home; where it should be if it is nowhere."""
    places = (home, images.parent, home.parent, home.parent / "splits", home / "splits")
    return next((p / layout.split for p in places if (p / layout.split).is_file()), home / layout.split)


def is_wordnet(name: str) -> bool:
    """Whether a folder is named as ImageNet's are: n01440764."""
    return len(name) == 9 and name[0] == "n" and name[1:].isdecimal()


def domain_folder(images: Path, name: str, spellings: Iterable[str]) -> Path | None:
    """The folder of a domain, whatever its case, spaces and underscores."""
    accepted = {_plain(name), *map(_plain, spellings)}
    matches = (
        sorted(p for p in images.iterdir() if _plain(p.name) in accepted and p.is_dir()) if images.is_dir() else []
    )
    return matches[0] if matches else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


class Files:
    """Which relative paths exist below a folder; lists every folder once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Names of the files in `root / folder`; empty if it is no folder."""
        if folder not in self._names:
            path = self.root / folder
            names = (entry.name for entry in os.scandir(path)) if path.is_dir() else ()
            self._names[folder] = frozenset(names)
        return self._names[folder]

    def find(self, file: str) -> str | None:
        """`file` (relative, with slashes) if it is there, or where an archive unpacked twice puts it (a/a/b.jpg)."""
        path = PurePosixPath(file)
        if not path.parts:
            return None  # "" and ".": the folder itself
        if path.name in self.names(path.parent.as_posix()):
            return file
        top, *rest = path.parts
        twice = PurePosixPath(top, top, *rest) if rest else path
        return twice.as_posix() if twice != path and twice.name in self.names(twice.parent.as_posix()) else None

    def unlisted(self, listed: Iterable[str]) -> int:
        """How many images the folders seen hold that are not in `listed`."""
        known = set(listed)
        suffixes = (".jpg", ".jpeg", ".png")
        return sum(
            name.lower().endswith(suffixes) and PurePosixPath(folder, name).as_posix() not in known
            for folder, names in self._names.items()
            for name in names
        )
