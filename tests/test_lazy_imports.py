"""``import ogenlib`` is quick: its parts are imported when they are used, and nobody can tell otherwise."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ogenlib as og


def test_neither_the_package_nor_the_entry_of_the_command_line_waits_for_torch() -> None:
    code = "import sys, ogenlib, ogenlib.cli.main; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], [], ["nothing"], ["--nothing"]])
def test_help_and_what_is_no_command_are_answered_without_loading_anything(arguments: list[str]) -> None:
    code = "import sys; from ogenlib.cli import main; code = main(sys.argv[1:])\n"
    code += "print(code, sorted({'torch', 'numpy', 'PIL', 'open_clip'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{0 if arguments == ['--help'] else 2} []"
    assert "COMMAND" in done.stdout + done.stderr or "nothing" in done.stderr


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
