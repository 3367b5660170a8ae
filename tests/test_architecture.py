"""The import arrows and the house rules, read from the source with `ast`."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ("ogenlib", "generators", "distill")
MAX_LINES = 400
COMMAND_LINE = ("ogenlib/cli*.py", "ogenlib/commands.py", "ogenlib/__main__.py")
TOP = ("ogenlib.train", "ogenlib.evaluate", "ogenlib.report", "ogenlib.bench", "ogenlib.cli", "ogenlib.commands")
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


@dataclass(frozen=True)
class Layer:
    """What the files of one folder may import.

    modules: modules of this project (with everything below them); None: all but `never`.
    other: packages from outside and of the standard library; None: any.
    typing_only: modules of this project that `if TYPE_CHECKING:` may import besides.
    """

    modules: tuple[str, ...] | None
    other: frozenset[str] | None = None
    never: tuple[str, ...] = ()
    typing_only: tuple[str, ...] = ()


LAYERS = {
    "generators": Layer(("ogenlib.generators",), frozenset(("torch", "einops")) | PURE_STDLIB),
    "distill": Layer(("ogenlib.distill",), frozenset(("torch", "einops")) | PURE_STDLIB),
    "ogenlib/utils": Layer(("ogenlib.utils",)),
    "ogenlib/towers": Layer(("ogenlib.towers", "ogenlib.utils")),
    "ogenlib/data": Layer(("ogenlib.data", "ogenlib.utils"), typing_only=("ogenlib.towers",)),
    "ogenlib/anchors": Layer(("ogenlib.anchors", "ogenlib.data", "ogenlib.utils"), typing_only=("ogenlib.towers",)),
    "ogenlib/hosts": Layer(None, never=("ogenlib.ogen", "ogenlib.detect", *TOP)),
}


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


def imports(file: str, tree: ast.AST) -> list[Import]:
    """Every import, at any depth, relative ones resolved."""
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
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


def arrow_faults(file: str, tree: ast.AST) -> Iterator[str]:
    """Imports that point the wrong way."""
    layer = next((LAYERS[folder] for folder in LAYERS if file.startswith(folder + "/")), None)
    for item in imports(file, tree):
        where = f"{file}:{item.line}: imports {item.path}"
        top = item.path.split(".")[0]
        if top in ("generators", "distill"):
            yield f"{where}: the installed name is ogenlib.{top}"
        if layer and top == "ogenlib":
            allowed = layer.modules is None or below(item.path, layer.modules)
            allowed = allowed or (item.typing_only and below(item.path, layer.typing_only))
            # `import ogenlib` reaches everything, whatever is used of it.
            if not allowed or item.path == "ogenlib" or below(item.path, layer.never):
                yield f"{where}: not below {package_of(file)}"
        elif layer and layer.other is not None and top not in layer.other:
            yield f"{where}: {file.split('/')[0]} knows torch and einops only"
        is_command_line = any(fnmatch.fnmatch(file, pattern) for pattern in COMMAND_LINE)
        if file.startswith(LIBRARY) and not is_command_line and below(item.path, ("ogenlib.cli", "ogenlib.commands")):
            yield f"{where}: only the command line imports the command line"
        from_data = file.startswith("ogenlib/hosts/") and below(item.path, ("ogenlib.data",))
        if from_data and not item.path.rpartition(".")[2][:1].isupper():
            yield f"{where}: hosts take plain types from data, not functions"


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
    lines = source.count("\n") + (not source.endswith("\n"))
    if source and lines > MAX_LINES:
        found.append(f"{file}: {lines} lines, {MAX_LINES} at most")
    return found


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", [*LIBRARY, "benchmarks", "tests"])
def test_every_file_keeps_the_rules(folder: str) -> None:
    paths = files_of(folder)
    assert paths
    found = [f for p in paths for f in faults(p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("folder", LAYERS)
def test_every_layer_has_files(folder: str) -> None:
    assert [path for path in files_of(folder) if path.is_file()]


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
    "wrong-name": ("ogenlib/ogen.py", "from generators import f\n", "installed name"),
    "towers-hosts": ("ogenlib/towers/a.py", "from ogenlib.hosts import CoOp\n", "not below"),
    "towers-train": ("ogenlib/towers/a.py", "from ogenlib import train\n", "not below"),
    "towers-up": ("ogenlib/towers/a.py", "from .. import evaluate\n", "not below"),
    "data-towers": ("ogenlib/data/a.py", "from ogenlib.towers import Backbone\n", "not below"),
    "data-typing-hosts": (
        "ogenlib/data/a.py", "if TYPE_CHECKING:\n    from ogenlib.hosts import Host\n", "not below"),
    "data-typing-else": (
        "ogenlib/data/a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import ogenlib.towers\n", "not below"),
    "hosts-train": ("ogenlib/hosts/a.py", "from ogenlib.train import fit\n", "not below"),
    "hosts-cli": ("ogenlib/hosts/a.py", "import ogenlib.cli\n", "not below"),
    "hosts-loader": ("ogenlib/hosts/a.py", "from ogenlib.data import load_dataset\n", "plain types"),
    "cli": ("ogenlib/train.py", "from ogenlib.cli import main\n", "only the command line"),
    "print": ("ogenlib/train.py", "print(1)\n", "prints"),
    "cuda": ("distill/a.py", "def f(x):\n    return x.cuda()\n", ".cuda()"),
    "pickle": ("ogenlib/runs.py", "import pickle\n", "safetensors"),
    "torch-load": ("ogenlib/runs.py", "torch.load(path)\n", "weights_only"),
    "torch-load-false": ("ogenlib/runs.py", "torch.load(path, weights_only=False)\n", "weights_only"),
    "numpy-load": ("ogenlib/runs.py", "np.load(path, allow_pickle=True)\n", "allow_pickle"),
    "seed": ("ogenlib/train.py", "torch.manual_seed(0)\n", "fork_rng"),
    "seed-later": (
        "ogenlib/train.py", "with fork_rng():\n    def f():\n        torch.manual_seed(0)\n", "fork_rng"),
    "private-import": ("benchmarks/a.py", "from ogenlib.towers.text import _first\n", "private"),
    "private-module": ("benchmarks/a.py", "import ogenlib._things\n", "private"),
    "private-attribute": ("benchmarks/a.py", "import ogenlib as og\nog.hosts._registry\n", "private"),
    "long": ("tests/a.py", "x = 1\n" * (MAX_LINES + 1), "400 at most"),
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
    "cli": ("ogenlib/cli_bench.py", "from ogenlib.commands import bench\nprint(1)\n"),
    "generator": ("ogenlib/train.py", "torch.Generator().manual_seed(0)\n"),
    "forked": ("ogenlib/train.py", "with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)\n"),
    "load": ("ogenlib/runs.py", "from pickle import UnpicklingError\ntorch.load(p, weights_only=True)\n"),
    "is-available": ("ogenlib/train.py", "torch.cuda.is_available()\n"),
    "benchmark": ("benchmarks/a.py", "import ogenlib as og\nprint(og.__version__)\n"),
    "longest": ("tests/a.py", "x = 1\n" * MAX_LINES),
}  # fmt: skip


@pytest.mark.parametrize("file, source", ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_not_reported(file: str, source: str) -> None:
    assert faults(file, source) == []


def test_pure_layers_name_real_standard_modules() -> None:
    assert PURE_STDLIB - sys.stdlib_module_names == set()
