"""Datasets of several domains: DomainNet, Office-Home, PACS and VLCS, from lists or from folders alone.

Both Dassl's folders (lists in splits/, or train and crossval folders in every domain) and DomainBed's (domain/class)
are read. A domain's name is Dassl's, whatever its folder is called.
"""

from __future__ import annotations

from pathlib import Path

from ogenlib.data.layouts import Layout
from ogenlib.data.listing import Entry, Listing, image_files, read_lines
from ogenlib.data.place import Place, domain_folder

_PARTS = {"train": "train", "val": "val", "crossval": "val", "test": "test", "full": None}


def read_domains(layout: Layout, place: Place, home: Path, images: Path) -> Listing:
    """All images of all domains; `split` is "" where nothing says which images train.

    Raises ValueError for a domain without a folder and for lists that do not fit, naming them.
    """
    folders = {name: domain_folder(images, name, spellings) for name, spellings in layout.domains.items()}
    missing = [name for name, folder in folders.items() if folder is None]
    if missing:
        raise FileNotFoundError(
            f"{layout.name}: {images} has no folder for the domain {' or '.join(missing)}; {layout.page} has it"
        )
    present = {name: folder for name, folder in folders.items() if folder is not None}
    lists = _lists(layout, home)
    return _from_lists(layout, lists, images) if lists else _from_folders(layout, present, images)


def _lists(layout: Layout, home: Path) -> list[tuple[str, str, Path]]:
    """(split, domain, file) of every list; none unless all are there. Raises if only some are."""
    lists: list[tuple[str, str, Path]] = []
    absent: list[str] = []
    for split, patterns in layout.lists.items():
        for domain in layout.domains:
            path = next((p for p in (home / pattern.format(domain) for pattern in patterns) if p.is_file()), None)
            if path is None:
                absent.append(str(home / patterns[0].format(domain)))
            else:
                lists.append((split, domain, path))
    if lists and absent:
        raise FileNotFoundError(
            f"{layout.name}: no file {absent[0]} ({len(absent)} of {len(absent) + len(lists)} lists are missing); "
            f"add it as {layout.page} says, or remove the other lists to read the folders alone"
        )
    return lists


def _from_lists(layout: Layout, lists: list[tuple[str, str, Path]], images: Path) -> Listing:
    files: list[tuple[str, int, str, str]] = []
    names: dict[int, str] = {}
    for split, domain, path in lists:
        for number, line in enumerate(read_lines(path), 1):
            if not line:
                continue
            file, _, written = line.rpartition(" ")
            parts = file.split("/")
            if not written.isdecimal() or len(written) > 9 or len(parts) < 3:
                raise ValueError(f"{path} line {number}: {line!r}; expected `domain/class/image.jpg label`")
            if file in layout.ignored:
                continue
            label = int(written)
            if names.setdefault(label, parts[-2]) != parts[-2]:
                raise ValueError(
                    f"{path} line {number}: label {label} is {parts[-2]!r} here and {names[label]!r} before; "
                    f"a label has one class"
                )
            files.append((file, label, split, domain))
    position = {label: i for i, label in enumerate(sorted(names))}  # PACS counts from 1
    entries = [Entry(file, position[label], split, domain) for file, label, split, domain in files]
    return Listing(str(lists[0][2].parent), [names[label] for label in sorted(names)], entries, listed=True)


def _from_folders(layout: Layout, domains: dict[str, Path], images: Path) -> Listing:
    files: list[tuple[str, str, str, str]] = []
    for domain, folder in domains.items():
        inner = {p.name: _PARTS.get(p.name.casefold(), "") for p in _folders(folder)}
        divided = bool(inner) and all(part != "" for part in inner.values())
        for part_name, part in sorted(inner.items()) if divided else [(".", "")]:
            if part is None and any(inner.values()):
                continue  # "full" repeats what the other folders hold
            for cls in _folders(folder / part_name):
                for file in image_files(cls):
                    relative = (cls / file).relative_to(images).as_posix()
                    if relative not in layout.ignored:
                        files.append((relative, cls.name, part or "", domain))
    written = sorted({name for _, name, _, _ in files})
    numbered = bool(layout.numbered) and all(name.isdecimal() for name in written)
    if numbered and [int(name) for name in written] != list(range(len(layout.numbered))):
        raise ValueError(f"{images}: class folders {written}; expected 0 to {len(layout.numbered) - 1}")
    position = {name: i for i, name in enumerate(written)}
    entries = [Entry(file, position[name], split, domain) for file, name, split, domain in files]
    return Listing(str(images), list(layout.numbered) if numbered else written, entries)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
