"""What the command line refuses, before it loads anything, and what it does not: one line, exit code 2, no folder."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ogenlib as og
from ogenlib.bench.runner import BenchConfig
from ogenlib.cli import methods
from ogenlib.cli.inputs import given_names, read_names, writable
from ogenlib.cli.main import main
from ogenlib.cli.settings import host_options
from ogenlib.cli.terminal import printable
from ogenlib.detect.of_run import read_images
from ogenlib.hosts import METHODS, ZeroShot, build, option_types
from ogenlib.utils.documents import DIGEST, digest_of

NAMES = ["dog", "\x1b[31mred\u202ecat\x07"]
AS_SEEN = r"\x1b[31mred\u202ecat\x07"


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, and a failure where a model or a run is opened."""
    for module in (
        "bench.suite",
        "runs.training",
        "detect.of_run",
    ):  # commands import them; they must not find `refuse`
        import_module(f"ogenlib.{module}")

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("something was loaded")

    for place in (
        "ogenlib.towers.load_backbone",
        "ogenlib.data.load_dataset",
        "ogenlib.bench.runner.run_bench",
        "ogenlib.bench.suite.run_suite",
        "ogenlib.runs.saved.read_run",
        "ogenlib.runs.saved.load_run",
        "ogenlib.runs.training.load_backbone",
        "ogenlib.runs.training.load_dataset",
    ):
        monkeypatch.setattr(place, refuse)
    monkeypatch.setattr(og.Classifier, "load", refuse)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose names and whose images' names hold escape sequences."""
    folder = tmp_path_factory.mktemp("run")
    ZeroShot(og.load_backbone("ogen-tiny"), NAMES).save(folder / "run")
    Image.new("RGB", (64, 64), "red").save(folder / "a\x1b[2J.png")
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


REFUSED = [
    # empty values
    (["train", "--out", ""], "argument --out: '' is empty"),
    (["train", "--ogen", "--unknown", ""], "argument --unknown: '' is empty"),
    (["train", "--ogen", "--unknown", "cat", " "], "argument --unknown: ' ' is empty"),
    (["train", "--names", ""], "argument --names: '' is empty"),
    (["train", "--context", ""], "argument --context: '' is empty"),
    (["train", "--dataset", ""], "argument --dataset: '' is empty"),
    (["train", "--host", "coop", "--set", "context="], "context takes a word or null"),
    (["train", "--host", "coop", "--set", "=3"], "is not KEY=VALUE"),
    (["predict", "run", "a.png", "--names", "cat", ""], "argument --names: '' is empty"),
    (["predict", "run", "a.png", "--add-names", ""], "argument --add-names: '' is empty"),
    (["predict", "", "a.png"], "argument RUN: '' is empty"),
    (["detect", "run", "a.png", "--unknown", ""], "argument --unknown: '' is empty"),
    # numbers
    (["train", "--seed", "9" * 30], "is not a whole number of 64 bits"),
    (["train", "--epochs", "9" * 5000], "is not a whole number of 1 or more"),
    (["train", "--lr", "nan"], "'nan' is not a number"),
    (["detect", "run", "a.png", "--threshold", "nan"], "'nan' is not a number"),
    (["eval", "run", "--alpha", "2"], "alpha=2.0: must be from 0"),
    (["train", "--set", "k=" + "[" * 100_000], "cannot be read"),
    (["bench", "--ogen-set", "zero_shot_kl=1" + "0" * 400], "zero_shot_kl takes a number"),
    # settings of a method
    (["train", "--host", "ivlp", "--set", "source=1"], "ivlp has no setting 'source'; known are context, n_visual, "
                                                       "n_context, depth"),
    (["train", "--host", "ivlp", "--set", "generator=1"], "ivlp has no setting 'generator'"),
    (["train", "--host", "ivlp", "--set", "clip=1"], "ivlp has no setting 'clip'"),
    (["train", "--host", "coop", "--set", "names=[\"a\"]"], "coop has no setting 'names'"),
    (["train", "--host", "tip_adapter", "--set", "size=9"], "no setting 'size' that can be given by hand"),
    (["train", "--host", "promptkd", "--set", "taught_by={}"], "no setting 'taught_by' that can be given by hand"),
    (["train", "--host", "coop", "--set", "n_context=[1]"], "'n_context=[1]': n_context takes a whole number or null"),
    (["train", "--host", "coop", "--set", "n_context=2.5"], "n_context takes a whole number or null"),
    (["train", "--host", "coop", "--set", "class_specific=1"], "class_specific takes true or false"),
    (["train", "--host", "kgcoop", "--set", "weight=NaN"], "weight takes a number"),
    (["train", "--host", "kgcoop", "--set", "anchor_names=cat"], "anchor_names takes a list of words"),
    (["train", "--host", "taskres", "--set", "extra_names=[1]"], "extra_names takes a list of words"),
    # options without effect
    (["train", "--host", "zero_shot", "--context", "a photo"], "--context has no effect: zero_shot"),
    (["train", "--host", "taskres", "--context", "a photo"], "--context has no effect: taskres"),
    (["train", "--context", "a", "--set", "context=b"], "both set the context"),
    (["train", "--host", "tip_adapter", "--lr", "1"], "--lr has no effect: tip_adapter"),
    (["train", "--host", "tip-adapter", "--batch-size", "8", "--optimizer", "sgd"], "--optimizer have no effect"),
    (["train", "--host", "tip_adapter", "--epochs", "50"], "--epochs has no effect"),
    (["train", "--host", "zero_shot", "--shots", "16"], "--shots has no effect"),
    (["train", "--lr", "1", "--precision", "fp32", "--host", "zero_shot"], "--lr, --precision have no effect"),
    (["bench", "--hosts", "tip_adapter", "zero_shot", "--lr", "1"], "--lr has no effect"),
    (["bench", "--protocol", "few-shot", "--shots", "16"], "--shots has no effect: few-shot"),
    (["bench", "--protocol", "retrieval", "--hosts", "flyp", "--shots", "4"], "--shots has no effect"),
    (["bench", "--suite", "emoji8", "--dataset", "emoji-categories"], "--dataset has no effect"),
    (["bench", "--root", "/data"], "--root /data has no effect: emoji-categories is bundled"),
    (["bench", "--hosts", "zero_shot", "--preset", "paper"], "no run has OGEN (none of zero_shot takes it)"),
    (["bench", "--protocol", "few-shot", "--held-out-names"], "no new names with --protocol few-shot"),
    (["bench", "--protocol", "ood", "--measure-every", "2"], "measures after training only"),
    (["data", "list", "emoji-categories"], "NAME has no effect: data list"),
    (["data", "list", "--root", "/data", "--skip-bad"], "--root, --skip-bad have no effect"),
    (["data", "check", "--split", "test"], "--split has no effect: data check"),
    (["data", "check", "--read"], "--read has no effect"),
    (["data", "show", "--read"], "--read has no effect"),
    (["data", "check", "dtd", "--root", "/data", "--skip-bad"], "--skip-bad has no effect"),
    # files that are not there, before the model is loaded
    (["predict", "run", "a.png"], "a.png: there is no such file, which should be an image"),
    (["detect", "run", "."], ". is a folder, and should be a file with an image"),
    (["predict", "run", "a.png", "--names", "no.txt"], "no.txt: there is no such file"),
    (["predict", "run", "a.png", "--names", "cat", "cat"], "'cat' and 'cat'"),
    (["detect", "run", "a.png", "--unknown", "cat", "Cat"], "'cat' and 'Cat'"),
    (["train", "--names", "no.txt"], "no.txt: there is no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused_in_one_line_before_anything_is_loaded(
    arguments: list[str], message: str, nothing_loads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in said(capsys)
    assert list(nothing_loads.iterdir()) == []


def test_settings_that_differ_from_the_default_alone_are_no_combination() -> None:
    BenchConfig(protocol="few-shot", shots_list=(1,), ogen="no")
    BenchConfig(hosts=("zero_shot", "coop"), preset="paper", held_out=True)
    BenchConfig(protocol="base-to-new", measure_every=2)


# --- --out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["bench"],
        ["eval", "run"],
        ["extract"],
        ["data", "show"],
        ["report", "r.json"],
        ["detect", "run", "a.png"],
        ["words", "run", "--json"],
        ["predict", "run", "a.png", "--json"],
    ],
)
def test_a_folder_that_cannot_be_written_is_told_first(
    command: list[str], nothing_loads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nothing_loads / "file").write_text("")
    for out in ("file", "file/inside"):
        assert main([*command, "--out", out]) == 2
        assert f"{out} cannot be written" in said(capsys)
    assert [p.name for p in nothing_loads.iterdir()] == ["file"]


@pytest.mark.parametrize("command", [["export", "run"], ["convert", "openai", "a.pt"]])
def test_so_is_one_beside_which_nothing_can_be_written(
    command: list[str], nothing_loads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nothing_loads / "file").write_text("")
    assert main([*command, "--out", "file/inside"]) == 2
    assert "file cannot be written" in said(capsys)
    assert main([*command, "--out", "file"]) == 2
    assert "file already exists" in said(capsys)


def test_a_folder_made_for_the_check_is_removed_unless_something_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyboardInterrupt), writable(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with pytest.raises(ValueError, match="no"), writable(tmp_path / "b"):
        (tmp_path / "b" / "kept").touch()
        raise ValueError("no")
    assert (tmp_path / "b" / "kept").exists()
    with writable(tmp_path / "d"), writable(None):
        pass
    assert (tmp_path / "d").is_dir()


# --- names and images -------------------------------------------------------------------------------------


def test_read_names(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffdog\r\n\r\n red apple \n".encode())
    assert read_names(file) == ["dog", "red apple"]
    many = [f"name {i}" for i in range(40_000)]
    file.write_text("\n".join(many))
    assert read_names(file) == many
    for content, message in (
        (b"dog\ncat\ndog\n", r"repeats \['dog'\]"),
        (b" \n", "it is empty"),
        (b"caf\xe9\n", "names.txt must hold class names.* in UTF-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_names(file)
    with open(file, "wb") as large:
        large.truncate(2**40)
    with pytest.raises(ValueError, match="too many for class names"):
        read_names(file)


def test_given_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("listed").write_text("dog\ncat\n")
    Path("clock").mkdir()
    assert given_names(None) is None
    assert given_names(["listed", "clock", "x" * 5000]) == ["dog", "cat", "clock", "x" * 5000]
    with pytest.raises(ValueError, match="'dog' and 'Dog'"):
        given_names(["listed", "Dog"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_refused_at_once(nothing_loads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    for arguments in (
        ["predict", "run", "pipe"],
        ["detect", "run", "pipe"],
        ["train", "--names", "pipe"],
        ["predict", "run", "a.png", "--names", "pipe"],
        ["report", "pipe"],
    ):
        assert main(arguments) == 2
        assert re.search("pipe is (a pipe or a device|no file)", said(capsys))


def test_hidden_files_of_a_folder_are_no_banks(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for row in range(2):
            Image.new("RGB", (8, 8 + row)).save(tmp_path / name / f"{row}.png")
    (tmp_path / ".bank-0123456789ab.tmp.safetensors").touch()
    assert isinstance(read_images(tmp_path), og.data.ImageSet)


# --- whose fault ------------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        raise error

    return run


def test_a_type_error_is_a_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods, "listed", raising(TypeError("unsupported operand")))
    assert main(["methods"]) == 1
    assert "failed with TypeError: unsupported operand (--debug shows where)" in said(capsys)
    with pytest.raises(TypeError):
        main(["methods", "--debug"])


def test_but_a_model_that_cannot_be_handled_is_wrong_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ogenlib.towers import backbone
    from ogenlib.towers.text import UnknownTower

    monkeypatch.setattr(backbone, "find_source", raising(UnknownTower("text tower Odd cannot be fed with embeddings")))
    for command in (["train"], ["bench", "--smoke"], ["extract"]):
        assert main([*command, "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert "text tower Odd cannot be fed" in said(capsys)


def test_a_package_that_is_not_installed_is_wrong_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dataset", "x-{000..003}.tar", "--out", "out", "--quiet"]) == 2
    assert "pip install ogenlib[webdataset]" in said(capsys)


VALUES: dict[str, Any] = {
    "true or false": True,
    "a whole number": 1,
    "a number": 0.5,
    "a word": "a {}",
    "a list of words": ["a {}"],
    "null": None,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_takes_its_types_or_refuses_them(name: str, clip: Any) -> None:
    for key in option_types(METHODS[name]):
        for value in (*VALUES.values(), -1, 0, [], {}, "{0}"):
            try:
                build(name, clip, ["dog", "cat"], **host_options(name, [(key, value)]))
            except (ValueError, OSError) as error:  # a teacher's folder that is not there
                assert key in str(error) or str(error)


# --- what is printed --------------------------------------------------------------------------------------


def test_printable() -> None:
    assert printable("a\x1b]0;x\x07\r\n\u202e\x9b\udce9") == r"a\x1b]0;x\x07\r\n\u202e\x9b\udce9"
    plain = "żółć 日本 👩\u200d🚀 naïve"
    assert printable(plain) == plain


def test_names_of_classes_and_files_cannot_write_to_the_terminal(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(run / "a\x1b[2J.png")
    out = ["--out", str(tmp_path)]
    assert main(["predict", str(run / "run"), image]) == 0
    text, _ = capsys.readouterr()
    assert AS_SEEN in text and r"a\x1b[2J.png: " in text
    assert main(["detect", str(run / "run"), image, *out]) == 0
    text += capsys.readouterr().out
    assert main(["predict", str(run / "run"), image, "--names", NAMES[1], NAMES[1]]) == 2
    text += capsys.readouterr().err
    assert main(["train", "--dataset", "a\x1b[2J\n.csv", *out]) == 2
    text += capsys.readouterr().err
    assert main(["data", "list", "--\x1b[2J"]) == 2
    text += capsys.readouterr().err
    file = tmp_path / "results\x1b[2J.json"
    file.write_text(json.dumps({"schema": "ogenlib.results/1", "protocol": {}, "rows": [], "summary": []}))
    assert main(["report", str(file), *out]) == 0
    logged = capsys.readouterr()
    assert r"results\x1b[2J.json has no digest" in logged.err
    assert not set(text + logged.out + logged.err) & set("\x1b\x07\u202e")


# --- files that commands write ----------------------------------------------------------------------------


def test_detect_json_says_what_was_printed_with_its_digest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(run.glob("*.png"))
    assert main(["detect", str(run / "run"), str(image), "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "detect.json").read_text())
    assert found.pop(DIGEST) == digest_of(found)


@pytest.mark.slow
def test_what_is_printed_is_written_where_out_is_given(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = str(next(run.glob("*.png")))
    commands = {
        "predictions": ["predict", str(run / "run"), image],
        "methods": ["methods"],
        "datasets": ["data", "list"],
        "check": ["data", "check"],
    }
    for name, command in commands.items():
        assert main([*command, "--out", "here"]) == 0
        assert json.loads((tmp_path / "here" / f"{name}.json").read_text())
    assert main(commands["predictions"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]  # nothing is written unasked


# --- fetching ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["predict", "RUN", "IMAGE"], ["detect", "RUN", "IMAGE"], ["words", "RUN"], ["eval", "RUN"], ["export", "RUN"]],
)
def test_a_run_may_fetch_its_model_only_if_asked(
    command: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def load(*_: Any, download: bool, **__: Any) -> Any:
        asked.append(download)
        raise ValueError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ogenlib.runs.saved.load_run", load)
    monkeypatch.setattr(og.Classifier, "load", load)
    words = {"RUN": str(run / "run"), "IMAGE": str(next(run.glob("*.png")))}
    arguments = [words.get(word, word) for word in command]
    assert main(arguments) == main([*arguments, "--download"]) == 2
    assert asked == [False, True]
