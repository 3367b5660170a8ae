"""The import arrows and the house rules, read from the source with `ast`."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ("ogenlib", "generators", "distill")
COMMAND_LINE = ("ogenlib/cli/*.py", "ogenlib/__main__.py")
# From the ground up: a room may use those of lower floors, and no other of its own.
FLOORS = (
    ("utils",), ("towers", "data"), ("anchors",), ("hosts",), ("train", "ogen"),
    ("runs", "evaluate", "merge", "analysis"), ("export", "detect"), ("results",), ("bench.protocols",),
    ("report",), ("bench",), ("cli",),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# A student's teacher may be a saved run, which holds any method: its folder is opened when it is asked.
UPWARDS = {("ogenlib.hosts.promptkd", "ogenlib.runs.saved")}
PURE_STDLIB = frozenset(
    (
        "__future__", "abc", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "inspect",
        "itertools", "logging", "math", "numbers", "operator", "types", "typing", "warnings",
    )
)  # fmt: skip
PICKLING = frozenset(("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"))
GLOBAL_SEEDS = frozenset(
    (
        "torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.random.seed", "torch.cuda.manual_seed",
        "torch.cuda.manual_seed_all", "torch.default_generator.manual_seed", "random.seed", "np.random.seed",
        "numpy.random.seed",
    )
)  # fmt: skip


PURE = frozenset(("torch", "einops")) | PURE_STDLIB  # what generators and distill may import besides themselves


@dataclass(frozen=True)
class Import:
    """One imported module or name by its full dotted path, `name` bound to it in the file."""

    path: str
    name: str
    line: int
    typing_only: bool


def below(path: str, modules: tuple[str, ...]) -> bool:
    """Is `path` one of `modules`, or inside one?"""
    return any(path == m or path.startswith(m + ".") for m in modules)


def package_of(file: str) -> str:
    """`ogenlib/towers/text.py` -> `ogenlib.towers`; the two mapped folders sit inside ogenlib."""
    folder = file.rpartition("/")[0].replace("/", ".")
    return f"ogenlib.{folder}" if folder.split(".")[0] in ("generators", "distill") else folder


def imports(file: str, tree: ast.AST, only: set[int] | None = None) -> list[Import]:
    """Every import, at any depth, relative ones resolved; with `only`, of those nodes (by their `id`)."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if only is not None and id(node) not in only:
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                found.append(Import(alias.name, name, node.lineno, typing_only))
        elif isinstance(node, ast.ImportFrom):
            parts = package_of(file).split(".")
            start = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                found.append(Import(f"{module}.{alias.name}", alias.asname or alias.name, node.lineno, typing_only))
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing_only)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(tree, False)
    return found


def module_of(file: str) -> str:
    """`ogenlib/towers/text.py` -> `ogenlib.towers.text`; a package is its `__init__`."""
    return f"{package_of(file)}.{file.rpartition('/')[2].removesuffix('.py')}".removesuffix(".__init__")


def room_of(path: str) -> str | None:
    """The room that a dotted path of this project lies in; None for the hall, generators and distill.

    A room within another, `bench.protocols`, stands on a floor of its own.
    """
    parts = path.split(".")[1:] if path.startswith("ogenlib.") else []
    return next((room for room in (".".join(parts[:2]), ".".join(parts[:1])) if room in FLOOR), None)


def arrow_faults(file: str, tree: ast.AST) -> Iterator[str]:
    """Imports that point the wrong way: up, to a neighbour, or out of the pure packages."""
    own, pure = room_of(module_of(file)), file.split("/")[0] in ("generators", "distill")
    for item in imports(file, tree):
        where = f"{file}:{item.line}: imports {item.path}"
        top = item.path.split(".")[0]
        if top in ("generators", "distill"):
            yield f"{where}: the installed name is ogenlib.{top}"
        if pure and top == "ogenlib" and not below(item.path, (package_of(file).rstrip("."),)):
            yield f"{where}: not below {package_of(file)}"
        if pure and top not in PURE and top != "ogenlib":
            yield f"{where}: {file.split('/')[0]} knows torch and einops only"
        if own is None or top != "ogenlib":
            continue
        other = room_of(item.path)
        if item.path == "ogenlib":  # reaches everything, whatever is used of it
            yield f"{where}: name the room"
        elif other is not None and other != own and not item.typing_only:
            allowed = FLOOR[other] < FLOOR[own] or any(
                module_of(file) == of and below(item.path, (to,)) for of, to in UPWARDS
            )
            if not allowed:
                yield f"{where}: {own} is on floor {FLOOR[own]}, {other} on floor {FLOOR[other]}"
        from_data = own == "hosts" and below(item.path, ("ogenlib.data",))
        if from_data and not item.path.rpartition(".")[2][:1].isupper():
            yield f"{where}: hosts take plain types from data, not functions"


def module_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """For every module of the library those that it imports when it is imported itself."""
    modules = {module_of(file): file for file in sources}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        tree = ast.parse(sources[file])
        now = {id(node) for node in ast.walk(tree)} - {id(n) for f in functions(tree) for n in ast.walk(f)}
        graph[module] = set()
        for item in imports(file, tree, only=now):
            if not item.typing_only:
                parts = item.path.split(".")
                known = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
                graph[module] |= {next((m for m in known if m in modules), module)}
        graph[module].discard(module)
    return graph


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Bodies that run later."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that reach themselves."""
    found = []
    for start in graph:
        seen, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph.get(module, ())
        if start in seen:
            found.append(start)
    return found


def privacy_faults(file: str, tree: ast.AST) -> Iterator[str]:
    """Underscored names of ogenlib that a benchmark script uses."""

    def private(path: str) -> bool:
        return any(part.startswith("_") and not part.endswith("__") for part in path.split("."))

    ours = [item for item in imports(file, tree) if below(item.path, ("ogenlib",))]
    for item in ours:
        if private(item.path):
            yield f"{file}:{item.line}: imports {item.path}, which is private"
    names = {item.name for item in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if dotted.split(".")[0] in names and private("." + node.attr):
                yield f"{file}:{node.lineno}: uses {dotted}, which is private"


def rule_faults(file: str, tree: ast.AST) -> Iterator[str]:
    """print, .cuda(), pickles and reseeding of global generators in the library."""
    may_print = any(fnmatch.fnmatch(file, pattern) for pattern in COMMAND_LINE)
    for item in imports(file, tree):
        # The exception is what reading a foreign file safely can raise.
        if item.path.split(".")[0] in PICKLING and item.path != "pickle.UnpicklingError":
            yield f"{file}:{item.line}: imports {item.path}; write safetensors or JSON"

    def visit(node: ast.AST, forked: bool) -> Iterator[str]:
        if isinstance(node, ast.With | ast.AsyncWith):
            forked = forked or any("fork_rng(" in ast.unparse(i.context_expr) for i in node.items)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            forked = False  # its body runs later
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "print" and not may_print:
                yield f"{file}:{node.lineno}: prints; use logging or return the text"
            if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
                yield f"{file}:{node.lineno}: calls .cuda(); use .to(device)"
            if called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"{file}:{node.lineno}: torch.load without weights_only=True"
            if keywords.get("allow_pickle") == "True":
                yield f"{file}:{node.lineno}: allow_pickle=True"
            if called in GLOBAL_SEEDS and not forked:
                yield f"{file}:{node.lineno}: {called} outside fork_rng; pass a torch.Generator"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, forked)

    yield from visit(tree, False)


def faults(file: str, source: str) -> list[str]:
    """All that is wrong with one file; `file` is its path from the repository root, with slashes."""
    tree = ast.parse(source)
    found = list(arrow_faults(file, tree))
    if file.startswith(LIBRARY):
        found += rule_faults(file, tree)
    if file.startswith("benchmarks/"):
        found += privacy_faults(file, tree)
    return found


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", [*LIBRARY, "benchmarks", "tests"])
def test_every_file_keeps_the_rules(folder: str) -> None:
    paths = files_of(folder)
    assert paths
    found = [f for p in paths for f in faults(p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8"))]
    assert found == []


def test_every_room_is_on_a_floor_and_the_hall_is_empty() -> None:
    inside = {path.name for path in (ROOT / "ogenlib").iterdir() if not path.name.startswith("__pycache__")}
    assert inside == {"__init__.py", "__main__.py", "py.typed", *(room.split(".")[0] for room in FLOOR)}
    assert all(list((ROOT / "ogenlib" / room.replace(".", "/")).glob("*.py")) for room in FLOOR)


def test_no_module_reaches_itself() -> None:
    paths = [path for folder in LIBRARY for path in files_of(folder)]
    graph = module_graph({p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths})
    assert len(graph) > 150 and graph["ogenlib.hosts.coop"] and circles(graph) == []


def test_a_circle_is_found() -> None:
    sources = {
        "ogenlib/data/a.py": "from ogenlib.data.b import x\n",
        "ogenlib/data/b.py": "if True:\n    from ogenlib.data import c\n",
        "ogenlib/data/c.py": "import ogenlib.data.a\n",
        "ogenlib/data/d.py": "def f():\n    from ogenlib.data import d, a\n",
        "ogenlib/data/__init__.py": "",
    }
    graph = module_graph(sources)
    assert sorted(circles(graph)) == ["ogenlib.data.a", "ogenlib.data.b", "ogenlib.data.c"]


@pytest.mark.parametrize("folder", ["ogenlib/towers", "ogenlib/data", "ogenlib/hosts"])
def test_the_imports_of_real_files_are_seen(folder: str) -> None:
    seen = {
        item.path
        for path in files_of(folder)
        for item in imports(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
    }
    assert any(below(path, ("torch",)) for path in seen)
    assert any(below(path, (folder.replace("/", "."),)) for path in seen)


OFFENDERS = {
    "generators-clip": ("generators/a.py", "import open_clip\n", "torch and einops only"),
    "generators-files": ("generators/a.py", "def f():\n    from pathlib import Path\n", "torch and einops only"),
    "generators-towers": ("generators/a.py", "from ogenlib.towers import TextTower\n", "not below"),
    "generators-relative": ("generators/a.py", "from ..towers import TextTower\n", "not below"),
    "distill-generators": ("distill/a.py", "from ogenlib.generators.b import c\n", "not below"),
    "distill-whole": ("distill/a.py", "import ogenlib as og\n", "not below"),
    "wrong-name": ("ogenlib/ogen/a.py", "from generators import f\n", "installed name"),
    "towers-hosts": ("ogenlib/towers/a.py", "from ogenlib.hosts import CoOp\n", "on floor 3"),
    "towers-train": ("ogenlib/towers/a.py", "from ogenlib import train\n", "on floor 4"),
    "towers-up": ("ogenlib/towers/a.py", "from .. import evaluate\n", "on floor 5"),
    "data-towers": ("ogenlib/data/a.py", "from ogenlib.towers import Backbone\n", "on floor 1"),
    "whole": ("ogenlib/data/a.py", "import ogenlib\n", "name the room"),
    "lazy": ("ogenlib/hosts/a.py", "def f():\n    from ogenlib.runs import load_run\n", "on floor 5"),
    "data-typing-else": (
        "ogenlib/data/a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import ogenlib.towers\n", "on floor 1"),
    "hosts-train": ("ogenlib/hosts/a.py", "from ogenlib.train.loop import fit\n", "on floor 4"),
    "hosts-cli": ("ogenlib/hosts/a.py", "import ogenlib.cli.main\n", "on floor 11"),
    "hosts-loader": ("ogenlib/hosts/a.py", "from ogenlib.data import load_dataset\n", "plain types"),
    "cli": ("ogenlib/train/a.py", "from ogenlib.cli.main import main\n", "on floor 11"),
    "protocols-bench": ("ogenlib/bench/protocols/a.py", "from ogenlib.bench import config\n", "on floor 10"),
    "protocols-report": ("ogenlib/bench/protocols/a.py", "from ogenlib.report import page\n", "on floor 9"),
    "print": ("ogenlib/train/a.py", "print(1)\n", "prints"),
    "cuda": ("distill/a.py", "def f(x):\n    return x.cuda()\n", ".cuda()"),
    "pickle": ("ogenlib/runs/a.py", "import pickle\n", "safetensors"),
    "torch-load": ("ogenlib/runs/a.py", "torch.load(path)\n", "weights_only"),
    "torch-load-false": ("ogenlib/runs/a.py", "torch.load(path, weights_only=False)\n", "weights_only"),
    "numpy-load": ("ogenlib/runs/a.py", "np.load(path, allow_pickle=True)\n", "allow_pickle"),
    "seed": ("ogenlib/train/a.py", "torch.manual_seed(0)\n", "fork_rng"),
    "seed-later": (
        "ogenlib/train/a.py", "with fork_rng():\n    def f():\n        torch.manual_seed(0)\n", "fork_rng"),
    "private-import": ("benchmarks/a.py", "from ogenlib.towers.text import _first\n", "private"),
    "private-module": ("benchmarks/a.py", "import ogenlib._things\n", "private"),
    "private-attribute": ("benchmarks/a.py", "import ogenlib as og\nog.hosts._registry\n", "private"),
}  # fmt: skip


@pytest.mark.parametrize("file, source, expected", OFFENDERS.values(), ids=OFFENDERS)
def test_an_offender_is_reported(file: str, source: str, expected: str) -> None:
    assert any(expected in fault for fault in faults(file, source)), faults(file, source)


ALLOWED = {
    "generators": ("generators/a.py", "import math\nfrom collections.abc import Sequence\nimport torch.nn as nn\n"
                                      "from einops import rearrange\nfrom .b import c\n"),
    "towers": ("ogenlib/towers/a.py", "import open_clip\nfrom ogenlib.utils.files import atomic_write\n"),
    "data-typing": ("ogenlib/data/a.py", "if TYPE_CHECKING:\n    from ogenlib.towers import Backbone\n"),
    "hosts": ("ogenlib/hosts/a.py", "from ogenlib.data import FeatureBank\nfrom ogenlib.towers import load_backbone\n"),
    "cli": ("ogenlib/cli/bench.py", "from ogenlib.cli.parser import build_parser\nprint(1)\n"),
    "generator": ("ogenlib/train/a.py", "torch.Generator().manual_seed(0)\n"),
    "forked": ("ogenlib/train/a.py", "with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)\n"),
    "load": ("ogenlib/runs/a.py", "from pickle import UnpicklingError\ntorch.load(p, weights_only=True)\n"),
    "is-available": ("ogenlib/train/a.py", "torch.cuda.is_available()\n"),
    "benchmark": ("benchmarks/a.py", "import ogenlib as og\nprint(og.__version__)\n"),
}  # fmt: skip


@pytest.mark.parametrize("file, source", ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_not_reported(file: str, source: str) -> None:
    assert faults(file, source) == []


def test_pure_layers_name_real_standard_modules() -> None:
    assert PURE_STDLIB - sys.stdlib_module_names == set()
