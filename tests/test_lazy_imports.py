"""``import ogenlib`` is quick: its parts are imported when they are used, and nobody can tell otherwise."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ogenlib as og
from ogenlib.cli.parser import COMMANDS


def test_neither_the_package_nor_the_entry_of_the_command_line_waits_for_torch() -> None:
    code = "import sys, ogenlib, ogenlib.cli.main; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ANSWERED = [
    (["--help"], 0, "COMMAND"),
    ([], 2, "COMMAND"),
    (["nothing"], 2, "nothing"),
    (["--nothing"], 2, "COMMAND"),
    *(([command.name, "--help"], 0, "--print-config") for command in COMMANDS),
    (["methods"], 0, "coop"),
    (["methods", "--json"], 0, "coop"),
    (["bench", "--nothing"], 2, "--nothing"),
    (["bench", "--protocol", "magic"], 2, "base-to-new"),
    (["bench", "--ogen-set", "quux=5"], 2, "no setting 'quux'"),
    (["bench", "--print-config"], 0, "epochs: 50"),
    (["train", "--shots", "0"], 2, "'0' is not a whole number"),
    (["predict", "run", "nowhere.png"], 2, "no such file"),
    (["detect", "run", "a.png", "--threshold", "much"], 2, "'much' is not a number"),
]


def test_what_needs_no_model_is_answered_without_loading_anything() -> None:
    """Of all these together: help, what is wrong on the command line, and the list of methods."""
    code = f"""
import contextlib, io, sys
from ogenlib.cli import main
for arguments, code, text in {ANSWERED!r}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = main(arguments)
    assert found == code and text in said.getvalue(), (arguments, found, said.getvalue())
    assert not {{"torch", "numpy", "scipy", "PIL", "open_clip"}} & set(sys.modules), arguments
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_is_what_type_checkers_see() -> None:
    block = next(
        node
        for node in ast.parse(Path(str(og.__file__)).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*seen, "__version__"} == set(og.__all__) <= set(dir(og))
    for name, module in seen.items():
        value = getattr(og, name)
        assert value is getattr(__import__(str(module), fromlist=[name]), name)


def test_modules_are_attributes_and_other_names_are_not() -> None:
    assert og.towers.load_backbone is og.load_backbone
    for name in ("fits", "_nothing", "cli_nothing"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(og, name)
