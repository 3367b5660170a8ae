"""How the page of the API reads the code: where its packages lie, and how its docstrings are written.

An extension of griffe, which reads source for mkdocstrings and imports nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

MAPPED = ("generators", "distill")  # `package-dir` of pyproject.toml: in ogenlib once installed, beside it here
ENTRY = re.compile(r"(\w+): ")


class Reading(griffe.Extension):
    """Every package under the name it is imported by, and lists of arguments as sections."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Called once a package is read, before its functions and classes are handed to the methods below."""
        if pkg.name == "ogenlib":
            for name in MAPPED:
                add_package(pkg, name, loader)

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Arguments of a function."""
        if func.docstring:
            func.docstring.value = sectioned(func.docstring.value, "Args", {p.name for p in func.parameters})

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Attributes of a class, fields of a dataclass among them, and arguments of its constructor."""
        if cls.docstring:
            attributes = {name for name, member in cls.members.items() if member.is_attribute}
            text = sectioned(cls.docstring.value, "Attributes", attributes)
            cls.docstring.value = sectioned(text, "Args", {p.name for p in cls.parameters})


def add_package(parent: griffe.Module, name: str, loader: griffe.GriffeLoader) -> None:
    """Put the package whose folder lies beside that of `parent` into `parent`."""
    assert isinstance(parent.filepath, Path)  # a list for namespaces, which have no file
    folder = parent.filepath.parents[1] / name
    package = add_module(parent, name, folder / "__init__.py", loader)
    for file in sorted(folder.glob("[!_]*.py")):
        add_module(package, file.stem, file, loader)


def add_module(parent: griffe.Module, name: str, file: Path, loader: griffe.GriffeLoader) -> griffe.Module:
    """Put the module that is written in `file` into `parent`."""
    module = griffe.visit(
        name,
        file,
        file.read_text(encoding="utf-8"),
        extensions=loader.extensions,
        parent=parent,
        docstring_parser=loader.docstring_parser,
        docstring_options=loader.docstring_options,
        lines_collection=loader.lines_collection,
        modules_collection=loader.modules_collection,
    )
    parent.set_member(name, module)
    return module


def sectioned(text: str, title: str, names: set[str]) -> str:
    """A docstring with its first run of lines ``name: meaning`` for `names` indented under ``title:``.

    Older docstrings of this library list what they explain so, without a heading. What is indented below a line is part
    of it.
    """
    lines = text.split("\n")
    starts = [bool(entry and entry[1] in names) for entry in map(ENTRY.match, lines)]
    if True not in starts:
        return text
    first = end = starts.index(True)
    while end < len(lines) and (starts[end] or lines[end].startswith("    ")):
        end += 1
    section = [f"{title}:", *(f"    {line}" for line in lines[first:end])]
    return "\n".join([*lines[:first], "", *section, "", *lines[end:]])
