"""The wheel holds what it must and works alone; every dependency is used and has a reason."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("ogenlib", "generators", "distill")
MAX_WHEEL = 45_000_000  # bytes
# distribution -> what is imported, where they differ
MODULES = {"open_clip_torch": "open_clip", "pillow": "PIL", "faiss-cpu": "faiss", "pyyaml": "yaml"}
INDIRECT = {"transformers"}  # open_clip imports it, for Hugging Face text towers


def run(command: list[str], folder: Path) -> str:
    """Output of a command that must succeed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHONPATH")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: build folders of earlier builds would put deleted files into it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)], tree)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that holds the wheel, and sees the dependencies through a path file.

    A path file's folder is not searched for further path files, so an editable install beside the
    dependencies stays invisible.
    """
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    run([*pip, str(wheel)], folder)
    return python


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.slow
def test_the_wheel_installs_one_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in contents(wheel)}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"ogenlib"}
    assert len(tops) == 2


@pytest.mark.slow
def test_the_wheel_holds_every_source_file(wheel: Path) -> None:
    expected = set()
    for name in SOURCES:
        for path in (ROOT / name).rglob("*.py"):
            inside = path.relative_to(ROOT).as_posix()
            expected.add(inside if name == "ogenlib" else f"ogenlib/{inside}")
    assert {"ogenlib/generators/__init__.py", "ogenlib/distill/__init__.py", "ogenlib/__main__.py"} <= expected
    assert expected == {name for name in contents(wheel) if name.endswith(".py")}


@pytest.mark.slow
def test_the_wheel_holds_data_model_types_and_licence(wheel: Path) -> None:
    names = set(contents(wheel))
    for folder in ("ogenlib/data/emoji_bundle", "ogenlib/towers/ogen_tiny"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).iterdir() if path.is_file()}
        assert files and files <= names
    assert sum(re.fullmatch(r"ogenlib/data/emoji_bundle/[\w-]+\.zip", name) is not None for name in names) == 12
    assert {
        "ogenlib/py.typed",
        "ogenlib/report/style.css",
        "ogenlib/data/emoji_bundle/concepts.csv",
        "ogenlib/data/emoji_bundle/ATTRIBUTION.md",
        "ogenlib/towers/ogen_tiny/open_clip_config.json",
        "ogenlib/towers/ogen_tiny/open_clip_model.safetensors",
    } <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_is_small(wheel: Path) -> None:
    assert 1_000_000 < wheel.stat().st_size < MAX_WHEEL


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import json
from importlib.util import find_spec
import ogenlib, ogenlib.generators, ogenlib.distill
modules = (ogenlib, ogenlib.generators, ogenlib.distill)
clip, data = ogenlib.load_backbone("ogen-tiny"), ogenlib.load_dataset("emoji-categories")
print(json.dumps({
    "files": [m.__file__ for m in modules],
    "stray": [n for n in ("generators", "distill", "benchmarks", "tests") if find_spec(n)],
    "shape": list(clip.encode_text(["a bird"]).shape), "size": data.train.open(0).size, "dim": clip.embed_dim,
}))
"""
    seen = json.loads(run([str(installed), "-c", code], tmp_path))
    environment = installed.parents[1]
    assert all(Path(file).is_relative_to(environment) for file in seen["files"])
    assert seen["stray"] == []
    assert seen["shape"] == [1, seen["dim"]]
    assert seen["size"] == [64, 64]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_both_commands_of_the_wheel_explain_themselves(installed: Path, tmp_path: Path) -> None:
    by_module = run([str(installed), "-m", "ogenlib", "--help"], tmp_path)
    by_script = run([str(installed.parent / "ogen"), "--help"], tmp_path)
    assert "bench" in by_module
    assert by_module == by_script


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distribution(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match[0]


def imported(*folders: str) -> set[str]:
    """Top-level names of all absolute imports below the folders."""
    found = set()
    for path in (p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return found


def unused(requirements: list[str], modules: set[str]) -> list[str]:
    names = [distribution(r) for r in requirements]
    return [n for n in names if n not in INDIRECT and MODULES.get(n, n.replace("-", "_")) not in modules]


def test_every_dependency_is_imported() -> None:
    extras = project()["optional-dependencies"]
    assert len(project()["dependencies"]) >= 8
    assert unused(project()["dependencies"], imported(*SOURCES)) == []
    assert unused([*extras["plot"], *extras["hf"]], imported(*SOURCES)) == []
    assert unused(extras["build"], imported("benchmarks")) == []


def test_everything_imported_is_a_dependency() -> None:
    extras = project()["optional-dependencies"]
    optional = ("plot", "webdataset", "onnx", "captions", "faiss", "wordnet")
    listed = [*project()["dependencies"], *(r for extra in optional for r in extras[extra])]
    known = {MODULES.get(n, n.replace("-", "_")) for n in map(distribution, listed)}
    assert imported(*SOURCES) - known - set(sys.stdlib_module_names) - {"ogenlib"} == set()


def test_an_unused_dependency_is_found() -> None:
    assert unused(["torch>=2", "nothing-at-all>=1", "pillow"], {"torch", "PIL"}) == ["nothing-at-all"]


def test_every_requirement_has_a_reason() -> None:
    extras = project()["optional-dependencies"].values()
    requirements = [*project()["dependencies"], *(r for extra in extras for r in extra)]
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for requirement in requirements:
        if distribution(requirement) == project()["name"]:
            continue  # the project's own extras
        found = [line for line in lines if f'"{requirement}"' in line]
        assert found, requirement
        for line in found:
            assert re.search(r"# \S+", line.split(f'"{requirement}"')[1]), f"no reason beside {requirement}"
