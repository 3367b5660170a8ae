"""README and docs: their tables are current, their code runs, their links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import Python, python
from study_documents import DOCUMENTS, SHOWN

from benchmarks.docs import fill as fill_docs

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run:((?:(?!-->).)*)-->\s*\Z", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|<img[^>]+src=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. reason: why it is not run; None if it is, "" if none was given."""

    language: str
    code: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        excuse = NOT_RUN.search(text[: match.start()])
        found.append(Block(match[1], match[2], excuse[1].strip() if excuse else None))
    return found


def links(text: str) -> list[str]:
    """Targets of links and images outside code that are neither addresses nor anchors."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    targets = [next(filter(None, match.groups())) for match in LINK.finditer(prose)]
    return [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]


README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(README)
PYTHON = [b for b in BLOCKS if b.language == "python"]
COMMANDS = [line for b in BLOCKS if b.language == "sh" and b.reason is None for line in b.code.splitlines()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: class folders in my-images, and picture.jpg."""
    from ogenlib.data import load_dataset

    folder = tmp_path_factory.mktemp("reader")
    images = load_dataset("emoji-categories").train
    for name in ("bird", "boat", "fruit", "heart"):
        (folder / "my-images" / name).mkdir(parents=True)
        rows = [i for i in range(len(images)) if images.classnames[images[i].label] == name][:4]
        assert rows
        for row in rows:
            images.open(row).save(folder / "my-images" / name / f"{row}.png")
    images.open(0).save(folder / "picture.jpg")
    return folder


@pytest.fixture
def fresh(workplace: Path, tmp_path: Path) -> Path:
    """The same pictures in a folder that no other page has written to."""
    shutil.copytree(workplace / "my-images", tmp_path / "my-images")
    shutil.copy(workplace / "picture.jpg", tmp_path)
    return tmp_path


def test_the_readme_has_code_and_commands() -> None:
    assert len(PYTHON) >= 2
    assert {"make demo", "make test"} <= {line.split("#")[0].strip() for line in COMMANDS}
    assert any(line.startswith("ogen ") for line in COMMANDS)
    assert not [b.code for b in BLOCKS if b.reason == ""], "a block that is not run gives no reason"


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON, ids=[f"block{i}" for i in range(len(PYTHON))])
def test_python_blocks_of_the_readme_run(block: Block, workplace: Path) -> None:
    ast.parse(block.code)
    if block.reason:
        pytest.skip(block.reason)
    python("-c", smaller(block.code), folder=workplace)


def smaller(code: str) -> str:
    """Code of a page with fewer epochs, views and shots than a reader would want."""
    return re.sub(r"\b(epochs|views|shots)=(\d+)", lambda found: f"{found[1]}={min(int(found[2]), 2)}", code)


QUICK = {
    "bench": ["--smoke", "--epochs", "1"],
    "train": ["--epochs", "2", "--views", "1"],
}  # options added to a command


INTO = "with open({!r}, 'w') as _f, __import__('contextlib').redirect_stdout(_f):\n"  # what a command prints


def partition(words: list[str], at: str) -> tuple[list[str], list[str], list[str]]:
    """What is before a word, the word, and what is behind it."""
    place = words.index(at) if at in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


def as_program(text: str) -> str:
    """A page as one Python program: its blocks in their order, a command as a call of it.

    Commands other than ogen's are checked for what they name and not run: they measure for minutes, or install.
    """
    parts = []
    for block in blocks(text):
        if block.reason is not None:
            continue
        if block.language == "python":
            parts.append(smaller(block.code))
        if block.language in ("sh", "console"):
            for line in block.code.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:1] == ["ogen"]:
                    words, _, file = partition(words, ">")
                    command = [*words[1:], *QUICK.get(words[1], [])]
                    # In the page's own process: importing torch for every command takes longer than most commands.
                    call = f"assert __import__('ogenlib.cli.main').cli.main({command!r}) == 0\n"
                    parts.append(f"{INTO.format(*file)}    {call}" if file else call)
                elif words:
                    check_command(words)
    return "\n".join(parts)


def check_command(words: list[str]) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), words
    else:
        assert words[0] in ("python", "pip"), words
        module = words[1] == "-m" and words[2].startswith("benchmarks.")
        file = f"{words[2].replace('.', '/')}.py" if module else words[1]
        assert words[0] == "pip" or (ROOT / file).is_file(), words


def programs() -> list[tuple[str, str]]:
    """Every docs page with something to run: its name and its program."""
    pages = [(p.name, as_program(p.read_text(encoding="utf-8"))) for p in sorted((ROOT / "docs").glob("*.md"))]
    return [(name, program) for name, program in pages if program]


@pytest.mark.slow
@pytest.mark.parametrize("name, program", programs(), ids=lambda value: value if value.endswith(".md") else "")
def test_a_docs_page_runs_from_top_to_bottom(name: str, program: str, fresh: Path) -> None:
    ast.parse(program)
    python("-c", program, folder=fresh)


def test_a_page_becomes_a_program() -> None:
    text = "```sh\nogen data list  # all\nmake docs\n```\n```python\nx(epochs=50, views=1)\n```\n"
    text += "<!-- not run: slow -->\n```sh\nogen z\n```\n"
    program = as_program(text + "```console\n$ ogen train --out a\n```\n```text\nogen no\n```\n")
    assert [line for line in program.splitlines() if line] == [
        "assert __import__('ogenlib.cli.main').cli.main(['data', 'list']) == 0",
        "x(epochs=2, views=1)",
        "assert __import__('ogenlib.cli.main').cli.main(['train', '--out', 'a', '--epochs', '2', '--views', '1']) == 0",
    ]
    printed = as_program("```sh\nogen methods --json > methods.json\n```\n")
    assert printed.splitlines()[0].startswith("with open('methods.json', 'w')")
    assert printed.splitlines()[1] == "    assert __import__('ogenlib.cli.main').cli.main(['methods', '--json']) == 0"
    with pytest.raises(AssertionError):
        as_program("```sh\nmake nothing\n```\n")
    for command in ("python benchmarks/nothing.py", "python -m benchmarks.nothing", "python -m nothing"):
        with pytest.raises(AssertionError):
            as_program(f"```sh\n{command}\n```\n")
    assert as_program("```sh\npython -m benchmarks.docs.fill --check\n```\n") == ""


def test_every_page_is_in_the_site_and_in_its_index() -> None:
    pages = {p.name for p in (ROOT / "docs").glob("*.md")}
    settings = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r": ([\w-]+\.md)$", settings, re.MULTILINE)) == pages
    assert set(links((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))) == pages - {"index.md"}


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="extra docs is not installed (mkdocs, mkdocs-material)")
    place = ["--site-dir", str(tmp_path / "site"), "--config-file", "docs/site/mkdocs.yml"]
    python("-m", "mkdocs", "build", "--strict", *place, folder=ROOT)
    assert (tmp_path / "site" / "export" / "index.html").is_file()


@pytest.mark.slow
def test_the_table_of_methods_is_current() -> None:
    process = Python("-m", "benchmarks.docs.methods", "--check", folder=ROOT)
    assert process.wait() == 0, process.said() + "\nrun python -m benchmarks.docs.methods"


@pytest.mark.slow
def test_commands_of_the_readme_run(fresh: Path) -> None:
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        if words[:1] == ["ogen"]:
            python("-m", "ogenlib", *words[1:], *QUICK.get(words[1], []), folder=fresh)
        elif words:
            assert words[0] == "make", line
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), line


@pytest.mark.parametrize("path", fill_docs.documents(ROOT), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [t for t in links(text) if not (path.parent / t).exists()] == []
    for block in blocks(text):
        if block.language == "python":
            ast.parse(block.code)


@pytest.mark.slow
def test_tables_are_current() -> None:
    assert "README.md: base-to-new" in python("-m", "benchmarks.docs.fill", "--check", folder=ROOT)


def test_links_and_blocks_are_found() -> None:
    text = '[a](b.md#c) ![p](i.png "t") [w](https://x.y) [h](#top) `[q](r)`\n```sh\n[s](t)\n```\n<img src="u.svg">\n'
    assert links(text) == ["b.md", "i.png", "u.svg"]
    text = "<!-- not run: -->\n```python\nx\n```\n\n```python\ny\n```\n<!-- not run: slow -->\n\n```python\n```\n"
    assert blocks(text) == [Block("python", "x\n", ""), Block("python", "y\n", None), Block("python", "", "slow")]


RESULTS: dict[str, Any] = {
    "emoji-categories.json": {
        "protocol": {
            "dataset": "emoji-categories", "train_domains": ["noto"], "n_base": 26, "n_new": 25, "shots": 16,
            "epochs": 50, "seeds": [1, 2], "selection": "none: last epoch", "new_names_known_in_training": True,
            "backbone": {"name": "ogen-tiny", "weights_hash": "00ff"},
        },
        "summary": [
            {"domain": "noto", "host": "zero_shot", "ogen": False, "base": [30.0, None], "new": [31.04, None],
             "H": [30.5, None], "joint_H": [None, None], "ausuc": [20.0, None]},
            {"domain": "noto", "host": "coop", "ogen": True, "base": [45.0, 1.25], "new": [25.0, 2.0],
             "H": [32.1, 1.0], "joint_H": [24.0, 1.0], "ausuc": [21.0, 1.0]},
            {"domain": "openmoji", "host": "coop", "ogen": True, "base": [1.0, 1.0], "new": [1.0, 1.0],
             "H": [1.0, 1.0], "joint_H": [1.0, 1.0], "ausuc": [1.0, 1.0]},
        ],
    },
    "ogen-tiny.json": {
        "sets": {
            "twemoji": {"all": 80.0, "groups": 85.0, "seen_in_pretraining": True},
            "noto": {"all": 55.0, "groups": 66.66, "seen_in_pretraining": False},
        },
        "categories": {"noto": {"base": 27.0, "new": 28.0}},
    },
    "speed.json": {
        "rows": [
            {"case": "24 names", "textbook_seconds": 10.0, "ours_seconds": 0.4, "textbook_peak_mib": 4096.0,
             "ours_peak_mib": 512.0, "flops_textbook": 3e12, "flops_ours": None, "over_floor": 1.25},
        ]
    },
    "generators.json": {
        "protocol": {"datasets": {"dtd": {"n_known": 24, "n_unknown": 23, "n_real_rows": 828}}, "seeds": [1, 2]},
        "summary": [
            {"dataset": "dtd", "variant": "text", "spread": None, "cosine_centred": [0.1161, 0.0],
             "nearest_mean": [56.88, 0.0], "zero_shot": [56.88, 0.0]},
            {"dataset": "dtd", "variant": "joint", "spread": "none", "cosine_centred": [0.5, 0.1],
             "frechet": [0.1234, 0.1], "mmd": [-0.001, 0.1], "density": [1.234, 0.1], "coverage": [0.5, 0.1],
             "pass_rate": [97.0, 1.0], "nearest_mean": [40.0, 2.0], "ridge": [41.04, None], "zero_shot": [56.88, 0.0]},
        ],
    },
    **DOCUMENTS,
}  # fmt: skip
RESULTS["speed-hosts.json"] = RESULTS["speed.json"]
EXPECTED = {
    "base-to-new": ["| zero-shot | 30.0 | 31.0 | 30.5 | – | 20.0 |", "| CoOp + OGEN | 45.0 ± 1.2 | 25.0 ± 2.0 |",
                    "seeds 1, 2", "weights 00ff", "OGEN knew the new names"],
    "ogen-tiny": ["| noto | no | 55.0 | 66.7 |\n| twemoji | yes |", "| noto | 27.0 | 28.0 |"],
    "speed": ["| 24 names | 10.000 / 0.400 | 25.0× | 4,096 / 512 | 8.0× | 3,000.0 / – | 1.25× |"],
    "generators": ["**dtd**: 24 known and 23 unknown classes, 828 real rows; zero-shot 56.9 %",
                   "| text | – | 0.116 | – | – | – | – | – | 56.9 | – |",
                   "| joint | none | 0.500 | 0.123 | -0.001 | 1.23 | 0.500 | 97.0 | 40.0 ± 2.0 | 41.0 |", "seeds 1, 2"],
    **SHOWN,
}  # fmt: skip
EXPECTED["speed-hosts"] = EXPECTED["speed"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name, (file, _) in fill_docs.BLOCKS.items():
        (tmp_path / "benchmarks" / "results" / file).write_text(json.dumps(RESULTS[file]))
        (tmp_path / "docs" / f"{name}.md").write_text(f"a\n<!-- begin: {name} -->\nold\n<!-- end: {name} -->\nz\n")
    return tmp_path


@pytest.mark.parametrize("name", fill_docs.BLOCKS)
def test_a_block_is_filled_from_its_results(name: str, repository: Path) -> None:
    assert fill_docs.main(["--root", str(repository)]) == 0
    text = (repository / "docs" / f"{name}.md").read_text()
    for expected in EXPECTED[name]:
        assert expected in text
    assert text.startswith("a\n<!-- begin") and text.endswith("-->\nz\n") and "old" not in text
    assert "openmoji" not in text
    assert fill_docs.main(["--root", str(repository), "--check"]) == 0


def test_check_names_stale_blocks_and_writes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "benchmarks" / "results" / "speed.json").unlink()
    assert fill_docs.main(["--root", str(repository), "--check"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"stale +docs/ogen-tiny.md: ogen-tiny", said)
    assert re.search(r"untouched +docs/speed.md: speed \(no speed.json\)", said)
    assert all("\nold\n" in path.read_text() for path in (repository / "docs").glob("*.md"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<!-- begin: nothing -->\n<!-- end: nothing -->\n", "unknown block 'nothing'"),
        ("<!-- begin: speed -->\n", "unpaired"),
        ("<!-- begin: speed -->\n<!-- begin: ogen-tiny -->\n<!-- end: ogen-tiny -->\n<!-- end: speed -->", "unpaired"),
    ],
)
def test_wrong_markers_are_refused(
    text: str, expected: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "README.md").write_text(text)
    assert fill_docs.main(["--root", str(repository), "--check"]) == 2
    assert expected in capsys.readouterr().err


def test_results_that_do_not_fit_are_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "benchmarks" / "results" / "speed.json").write_text('{"rows": [{"case": "24 names"}]}')
    assert fill_docs.main(["--root", str(repository)]) == 2
    assert "speed.json: does not fit block 'speed'" in capsys.readouterr().err
