"""ImageNet and its variants: folders named by WordNet id or class number, names from CoOp's classnames.txt.

Files in a class folder are sorted. CoOp takes them in the order the disk gives them, so its few-shot picks of
ImageNet differ from disk to disk, and no rule can repeat them.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ogenlib.data.dataset import normal_name
from ogenlib.data.layouts import Layout
from ogenlib.data.listing import Entry, Listing, image_files, read_lines
from ogenlib.data.place import Place, is_wordnet

# What tells apart the class names that are there twice in ImageNet lists: ImageNet's own words for the second one.
_OTHER_NAMES = {
    "n04008634": "projectile", "n04355933": "sunglass", "n03126707": "construction crane",
    "n03710721": "one-piece bathing suit", "n02963159": "cardigan sweater",
}  # fmt: skip


def read_wordnet(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    notes: list[str] = []
    folders_of: dict[str, list[str]] = {}
    for part, below in layout.folders.items():
        folder = images / below
        if not folder.is_dir():
            raise FileNotFoundError(f"{layout.name}: no folder {folder}; unpack its {part} images there")
        folders_of[part] = sorted(p.name for p in folder.iterdir() if is_wordnet(p.name) and p.is_dir())
        if not folders_of[part]:
            raise ValueError(
                f"{folder}: holds no class folders such as n01440764; sort the images into one folder a WordNet id"
            )
    ids = sorted({wordnet for folders in folders_of.values() for wordnet in folders})
    for part, folders in folders_of.items():
        if len(folders) < len(ids):
            notes.append(f"{part} lacks {len(ids) - len(folders)} of {len(ids)} class folders")
    names, source = wordnet_names(layout, place, home, ids)
    label = {wordnet: i for i, wordnet in enumerate(ids)}
    entries = [
        Entry(PurePosixPath(below, wordnet, file).as_posix(), label[wordnet], part)
        for part, below in layout.folders.items()
        for wordnet in folders_of[part]
        for file in image_files(images / below / wordnet)
    ]
    classnames, renamed = distinct([names[wordnet] for wordnet in ids], ids)
    info = {"classnames": source, "wordnet": ids, "renamed": renamed}
    return Listing(str(images), classnames, entries, notes=notes, info=info)


def read_numbered(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    folders = sorted((p.name for p in images.iterdir() if p.name.isdecimal() and p.is_dir()), key=int)
    if not folders:
        raise ValueError(f"{images}: holds no class folders 0, 1, 2, ...; unpack {layout.title} there")
    named, source = wordnet_names(layout, place, home, None)
    ids = list(named)
    if int(folders[-1]) >= len(ids):
        raise ValueError(f"{images}: class folder {folders[-1]}, but {source} has {len(ids)} names; use the full list")
    missing = len(ids) - len(folders)
    entries = [
        Entry(f"{folder}/{file}", int(folder), "test") for folder in folders for file in image_files(images / folder)
    ]
    classnames, renamed = distinct(list(named.values()), ids)
    notes = [f"test lacks {missing} of {len(ids)} class folders"] if missing else []
    info = {"classnames": source, "wordnet": ids, "renamed": renamed}
    return Listing(str(images), classnames, entries, notes=notes, info=info)


def wordnet_names(layout: Layout, place: Place, home: Path, ids: list[str] | None) -> tuple[dict[str, str], str]:
    """Class names by WordNet id, and where they come from: classnames.txt here or in imagenet/, else open_clip's.

    ids: the folders that need a name, sorted; None for all, which only a file can tell.
    """
    places = dict.fromkeys((home, place.root / "imagenet", place.root, home.parent / "imagenet"))
    path = next((p / "classnames.txt" for p in places if (p / "classnames.txt").is_file()), None)
    if path is None and ids is not None and len(ids) == 1000:
        from open_clip import IMAGENET_CLASSNAMES

        return dict(zip(ids, IMAGENET_CLASSNAMES, strict=True)), "open_clip"
    if path is None:
        looked = ", ".join(str(p / "classnames.txt") for p in places)
        raise FileNotFoundError(
            f"{layout.name}: no classnames.txt (lines like `n01440764 tench`; looked at {looked}); {layout.page} has it"
        )
    pairs = (line.partition(" ") for line in read_lines(path) if line)
    names = {wordnet: name.strip() for wordnet, _, name in pairs}
    unnamed = [wordnet for wordnet in ids or () if not names.get(wordnet)]
    if unnamed:
        raise ValueError(f"{path}: has no name for {len(unnamed)} class folders, the first {unnamed[0]}; add them")
    return names, str(path)


def distinct(names: list[str], ids: list[str]) -> tuple[list[str], dict[str, str]]:
    """The names with repeated ones told apart, and what was renamed: id to new name.

    CLIP's ImageNet names hold "missile" and "sunglasses" twice: two classes that no prompt could tell apart.
    """
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(normal_name(name), []).append(i)
    taken = set(groups)
    renamed: dict[str, str] = {}
    for indices in groups.values():
        known = [i for i in indices if ids[i] in _OTHER_NAMES] if len(indices) > 1 else []
        keep = next((i for i in indices if i not in known), indices[0])
        for i in indices:
            if i == keep:
                continue
            other = _OTHER_NAMES.get(ids[i], "")
            renamed[ids[i]] = other if other and normal_name(other) not in taken else f"{names[i]} ({ids[i]})"
            taken.add(normal_name(renamed[ids[i]]))
    return [renamed.get(ids[i], name) for i, name in enumerate(names)], renamed
