"""Every module of the benchmarks can be imported, and every script among them says what it takes."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from benchmarks.common.child import said_by
from benchmarks.common.options import part
from benchmarks.common.places import IMAGES, RESULTS, ROOT

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = sorted(path.relative_to(BENCHMARKS.parent) for path in BENCHMARKS.rglob("*.py"))
MODULES = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]
ROOMS = {"common", "ogen", "hosts", "robust", "ood", "speed", "bundle", "docs"}


def test_every_module_lies_in_a_room() -> None:
    assert {path.parts[1] for path in FILES} == {*ROOMS, "__init__.py"}
    assert BENCHMARKS.parent == ROOT and RESULTS.is_dir() and IMAGES.is_dir()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_imported_and_a_script_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(name)
    assert module.__doc__ and Path(inspect.getfile(module)).is_relative_to(BENCHMARKS)
    if hasattr(module, "main"):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            module.main()
        assert end.value.code == 0
        assert " ".join(capsys.readouterr().out.split()).find(module.__doc__.split()[0]) > 0


def test_scripts_are_named_by_the_module_that_runs_them() -> None:
    """A command in a docstring leads to the file that it stands in, or to another one."""
    for path in FILES:
        text = (BENCHMARKS.parent / path).read_text(encoding="utf-8")
        for line in text.splitlines():
            words = line.split()
            if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
                assert words[2] in MODULES, f"{path}: {line}"
            assert words[:1] != ["python"] or words[1] == "-m", f"{path}: {line}"


def test_parts_make_the_whole() -> None:
    cells = list(range(7))
    assert part(cells, None) == cells
    assert sorted([*part(cells, (1, 2)), *part(cells, (2, 2))]) == cells
    assert part(cells, (2, 3)) == [1, 4]


@pytest.mark.slow
def test_a_child_is_heard_and_a_failed_one_is_told() -> None:
    small = ("--rows", "20", "--classes", "4", "--dim", "8", "--threads", "1")
    found = said_by("ood.speed", "--child", "throughput", *small)
    assert [row["rows"] for row in found] == [20, 20, 20]
    with pytest.raises(ValueError, match=r"--some option of benchmarks\.nothing failed: .*No module named"):
        said_by("nothing", "--some", "option")
