"""Every command as a user runs it: what it writes, its exit code, and its messages."""

from __future__ import annotations

import json
import logging
import re

import pytest
from processes import python

from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.cli.main import main
from ogenlib.cli.parser import build_parser
from ogenlib.data import load_dataset
from ogenlib.results.tables import SCHEMA
from ogenlib.utils.variant import Variant

COMMANDS = [
    "bench", "train", "eval", "predict", "export", "words", "extract", "data", "methods", "report", "convert",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two classes, six pictures each, and one that cannot be read."""
    root = tmp_path_factory.mktemp("pictures")
    images = load_dataset("emoji-categories").train
    for name in ("fruit", "clock"):
        (root / name).mkdir()
        rows = [i for i, item in enumerate(images) if images.classnames[item.label] == name]
        for n in range(6):
            images.open(rows[n]).save(root / name / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    arguments = ["train", "--dataset", str(pictures), "--epochs", "2", "--views", "1", "--out", str(out)]
    assert main([*arguments, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    assert main(["bench", "--smoke", "--epochs", "2", "--out", str(out), "--quiet"]) == 0
    return out


def one_line(capsys) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


# --- bench ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_writes_the_results_contract(bench) -> None:
    results = json.loads((bench / "results.json").read_text())
    assert results["schema"] == SCHEMA
    card = results["protocol"]
    assert card["backbone"]["name"] == "ogen-tiny" and len(card["backbone"]["weights_hash"]) == 16
    assert card["seeds"] == [1] and card["shots"] == 4 and card["epochs"] == 2
    assert card["selection"].startswith("none") and card["new_names_known_in_training"] is True
    assert {"data_hash", "split_hash", "versions", "command", "git", "date"} <= set(card)
    wanted = {
        "dataset",
        "domain",
        "host",
        "ogen",
        "seed",
        "base",
        "new",
        "H",
        "joint_base",
        "joint_new",
        "joint_H",
        "joint_H_calibrated",
        "ausuc",
        "gate_auroc",
        "constant",
        "epochs",
        "seconds",
    }
    assert all(wanted <= set(row) for row in results["rows"])
    # Both is the default, and with it the control that costs nothing.
    variants = [Variant("zero_shot"), Variant("coop"), Variant("coop", control="zero-shot"), Variant("coop", True)]
    assert [(Variant.of(r), r["domain"]) for r in results["rows"]] == [
        (v, d) for v in variants for d in ("noto", "openmoji")
    ]
    for row in results["rows"]:
        a, b = row["base"], row["new"]
        assert row["H"] == pytest.approx(2 * a * b / (a + b))
        assert row["joint_base"] <= row["base"] and row["joint_new"] <= row["new"]
    curve, _ = results["curves"]
    home = next(r for r in results["rows"] if r["host"] == "coop" and r["domain"] == "noto")
    assert curve["epoch"] == [1, 2] and curve["base"][-1] == pytest.approx(home["base"])
    assert all(len(c["thumbnails"]) >= 1 for c in results["confusions"])


@pytest.mark.slow
def test_bench_writes_a_self_contained_report(bench) -> None:
    page = (bench / "report.html").read_text()
    assert "emoji-categories" in page and "data:image" in page
    assert not re.search(r"(src|href)=[\"']?https?://[^\"' >]+\.(js|css|png)", page)


@pytest.mark.slow
def test_bench_goes_on_from_finished_cells(bench, tmp_path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (bench / "cells").iterdir()}
    first = json.loads((bench / "results.json").read_text())
    config = BenchConfig(epochs=2).smoke()
    again = run_bench(config, bench)
    assert {p: p.stat().st_mtime_ns for p in (bench / "cells").iterdir()} == before and before
    assert again["rows"] == first["rows"]
    (bench / "cells" / "coop-seed1.json").unlink()
    repeated = run_bench(config, bench)
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in repeated["rows"]]
    assert strip == [{k: v for k, v in r.items() if k != "seconds"} for r in first["rows"]]


def test_bench_on_your_own_pictures(pictures, tmp_path) -> None:
    arguments = ["bench", "--dataset", str(pictures), "--smoke", "--epochs", "1", "--out", str(tmp_path), "--quiet"]
    assert main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"]["n_base"] == results["protocol"]["n_new"] == 1


def test_skipped_images_end_in_the_report(pictures, tmp_path, capsys) -> None:
    torn = [pictures / "fruit" / f"torn{n}.png" for n in range(6)]
    for path in torn:
        path.write_bytes((pictures / "fruit" / "0.png").read_bytes()[:200])
    arguments = ["bench", "--dataset", str(pictures), "--smoke", "--epochs", "1", "--out", str(tmp_path), "--quiet"]
    try:
        assert main(arguments) == 2
        assert re.search(r"torn\d\.png.*skip", one_line(capsys))
        assert not (tmp_path / "results.json").exists()
        assert main([*arguments, "--skip-bad"]) == 0
    finally:
        for path in torn:
            path.unlink()
    skipped = json.loads((tmp_path / "results.json").read_text())["protocol"]["skipped"]
    assert {s["file"].rsplit("/")[-1] for s in skipped} == {p.name for p in torn}
    assert all(s["reason"] for s in skipped)
    page = (tmp_path / "report.html").read_text()
    assert all(path.name in page for path in torn)


@pytest.mark.slow
def test_bench_prints_a_line_for_every_variant(bench, capsys) -> None:
    assert main(["bench", "--smoke", "--epochs", "2", "--out", str(bench)]) == 0  # all cells are finished
    text = capsys.readouterr().out
    starts = [" ".join(line[:22].split()) for line in text.splitlines() if "." in line[22:]]
    assert starts[:4] == ["zero_shot", "coop", "coop, zero-shot", "coop + OGEN"]


def test_bench_options_of_ogen_reach_the_runs(pictures, tmp_path) -> None:
    arguments = ["bench", "--dataset", str(pictures), "--smoke", "--epochs", "1", "--out", str(tmp_path), "--quiet"]
    assert (
        main(
            [
                *arguments,
                "--ogen",
                "--preset",
                "zero-shot-kl",
                "--held-out-names",
                "--ogen-set",
                "zero_shot_kl=2",
                "--ogen-set",
                "teacher=almt",
                "--ogen-set",
                "keep_teacher=true",
            ]
        )
        == 0
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert {(r["host"], r["ogen"]) for r in results["rows"]} == {("zero_shot", False), ("coop", True)}
    card = results["protocol"]["hosts"]["coop+ogen"]["ogen"]
    settings = card["settings"]
    assert (card["preset"], settings["zero_shot_kl"], settings["teacher"], settings["keep_teacher"]) == (
        "zero-shot-kl",
        2.0,
        "almt",
        True,
    )
    assert results["protocol"]["new_names_known_in_training"] is False and results["projection"] == []
    assert main([*arguments, "--no-ogen"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert not any(r["ogen"] for r in results["rows"])


# --- train, eval, predict ---------------------------------------------------------------------------------


def test_a_students_teacher_is_given_by_set(run, pictures, tmp_path) -> None:
    arguments = ["train", "--dataset", str(pictures), "--epochs", "1", "--views", "1", "--quiet", "--host", "promptkd"]
    out = tmp_path / "student"
    assert main([*arguments, "--set", f"teacher={run}", "--set", "n_visual=2", "--out", str(out)]) == 0
    settings = json.loads((out / "run.json").read_text())["config"]
    assert settings["n_visual"] == 2 and str(run) in json.dumps(settings["taught_by"])


def test_predict_prints_names(run, pictures, capsys) -> None:
    image = str(pictures / "clock" / "0.png")
    assert main(["predict", str(run), image]) == 0
    assert re.match(rf"{re.escape(image)}: (clock|fruit) \d+\.\d%, ", capsys.readouterr().out)


def test_predict_among_other_names_as_json(run, pictures, tmp_path, capsys) -> None:
    (tmp_path / "names.txt").write_text("banana\n\nwatch\ncar\n")
    arguments = ["predict", str(run), str(pictures / "clock" / "0.png"), "--names", str(tmp_path / "names.txt")]
    assert main([*arguments, "--json", "--out", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert sorted(row["names"]) == ["banana", "car", "watch"]
    assert json.loads((tmp_path / "predictions.json").read_text()) == [row]


def test_predict_among_names_given_as_words_or_added(run, pictures, tmp_path, capsys) -> None:
    (tmp_path / "names.txt").write_text("banana\n")
    image = str(pictures / "clock" / "0.png")
    for options, expected in (
        (["--names", "banana", "red car"], ["banana", "red car"]),
        (["--add-names", "banana"], ["banana", "clock", "fruit"]),
        (["--names", str(tmp_path / "names.txt"), "watch", "--add-names", "cat"], ["banana", "cat", "watch"]),
    ):
        assert main(["predict", str(run), image, *options, "--json", "--out", str(tmp_path)]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert sorted(row["names"]) == expected and sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
    for options, message in ((["--names", "cat", "Cat"], "'cat' and 'Cat'"), (["--names", "no.txt"], "no.txt")):
        assert main(["predict", str(run), image, *options]) == 2
        assert message in one_line(capsys)


def test_export_and_what_it_refuses(run, tmp_path, capsys) -> None:
    assert main(["export", str(run), "--format", "head", "--names", "banana", "--out", str(tmp_path / "a")]) == 0
    assert "head.safetensors" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "head.json").read_text())["names"] == ["banana"]
    assert main(["export", str(run), "--format", "head", "--no-tower", "--out", str(tmp_path / "b"), "--quiet"]) == 0
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["head.json", "head.safetensors"]
    assert main(["export", str(run), "--format", "open-clip", "--no-tower", "--out", str(tmp_path / "c")]) == 2
    assert "--no-tower is an option of --format head" in one_line(capsys)
    assert main(["export", str(run), "--out", str(tmp_path / "a")]) == 2
    assert "already exists" in one_line(capsys)


def test_eval_of_all_trained_names(run, pictures, tmp_path) -> None:
    assert main(["eval", str(run), "--dataset", str(pictures), "--out", str(tmp_path), "--quiet"]) == 0
    document = json.loads((tmp_path / "eval.json").read_text())
    assert document["schema"] == "ogenlib.eval/1" and 0 <= document["scores"]["accuracy"] <= 100


def test_eval_of_trained_and_other_names_is_base_to_new(pictures, tmp_path) -> None:
    (tmp_path / "names.txt").write_text("clock\n")
    out = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "--dataset",
                str(pictures),
                "--names",
                str(tmp_path / "names.txt"),
                "--epochs",
                "1",
                "--views",
                "1",
                "--out",
                out,
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["eval", out, "--dataset", str(pictures), "--out", str(tmp_path), "--quiet"]) == 0
    assert {"base", "new", "joint_H"} <= set(json.loads((tmp_path / "eval.json").read_text())["scores"])


def test_train_with_ogen(pictures, tmp_path, capsys) -> None:
    (tmp_path / "unknown.txt").write_text("banana\nwatch\n")
    out = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "--dataset",
                str(pictures),
                "--epochs",
                "2",
                "--views",
                "1",
                "--out",
                str(out),
                "--ogen",
                "--ogen-set",
                "iterations=5",
                "--unknown-file",
                str(tmp_path / "unknown.txt"),
            ]
        )
        == 0
    )
    assert "trained coop + OGEN on 8 images of 2 classes" in capsys.readouterr().out
    card = json.loads((out / "run.json").read_text())["ogen"]
    assert card["settings"]["iterations"] == 5 and card["new_names_known_in_training"] is True
    assert card["other_names"] == ["banana", "watch"]
    assert card["settings"]["k"] == 1  # two known names: each has one neighbour
    assert (out / "generator.safetensors").exists()
    assert main(["predict", str(out), str(pictures / "clock" / "0.png")]) == 0
    assert re.search(r": (clock|fruit) \d+\.\d%, ", capsys.readouterr().out)
    assert main(["eval", str(out), "--dataset", str(pictures), "--out", str(tmp_path), "--quiet"]) == 0
    document = json.loads((tmp_path / "eval.json").read_text())
    assert document["method"] == "coop" and document["ogen"] == card


def test_train_with_ogen_and_names_held_out_or_given(pictures, tmp_path) -> None:
    arguments = [
        "train",
        "--dataset",
        str(pictures),
        "--epochs",
        "1",
        "--views",
        "1",
        "--ogen",
        "--quiet",
        "--ogen-set",
        "iterations=5",
    ]
    for unknown, known in (([], False), (["--unknown", "banana", "red car"], True)):
        out = tmp_path / str(known)
        assert main([*arguments, "--out", str(out), *unknown]) == 0
        card = json.loads((out / "run.json").read_text())["ogen"]
        assert card["new_names_known_in_training"] is known and card["other_names"] == unknown[1:]


# --- the rest ---------------------------------------------------------------------------------------------


def test_extract_writes_a_bank(pictures, tmp_path, capsys) -> None:
    arguments = ["extract", "--dataset", str(pictures), "--views", "2", "--out", str(tmp_path), "--quiet"]
    assert main(arguments) == 0 and (tmp_path / "train.safetensors").exists()
    assert main([*arguments, "--views", "3"]) == 2
    assert "views" in one_line(capsys)


def test_data_list_check_show(tmp_path, capsys, pictures) -> None:
    assert main(["data", "list"]) == 0
    assert "emoji-categories" in capsys.readouterr().out
    assert main(["data", "check", str(pictures)]) == 0
    assert "train: 8 images of 2 classes, 4 to 4 a class" in capsys.readouterr().out
    assert main(["data", "show", "emoji-concepts/food-drink", "--out", str(tmp_path), "--quiet"]) == 0
    (sheet,) = tmp_path.glob("*.png")
    assert sheet.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_methods_as_json(capsys) -> None:
    assert main(["methods", "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["zero_shot"]["parameters"] == 0 and rows["zero_shot"]["ogen"] is False
    assert rows["coop"]["parameters"] == 4 * 128 and rows["coop"]["year"] == 2022 and rows["coop"]["ogen"] is True
    assert all({"name", "kind", "paper", "url", "year", "parameters", "ogen"} <= set(r) for r in rows.values())


@pytest.mark.slow
def test_report_is_made_again_from_results(bench, tmp_path, capsys) -> None:
    assert main(["report", str(bench), "--out", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "report.html").read_text() == (bench / "report.html").read_text()
    (tmp_path / "other.json").write_text('{"schema": "something"}')
    assert main(["report", str(tmp_path / "other.json"), "--quiet"]) == 2
    assert "ogenlib.results/1" in one_line(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_with_its_default(command: str, capsys) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--out", "--seed", "--device", "--quiet"))
    parser = next(a for a in build_parser()._actions if a.dest == "command").choices[command]
    for action in parser._actions:
        assert action.help, action.dest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--hosts", "coup"], "did you mean 'coop'"),
        (["bench", "--dataset", "emoji-category"], "emoji-categories"),
        (["bench", "--dataset", "/nowhere/at/all"], "/nowhere/at/all"),
        (["bench", "--protocol", "magic"], "base-to-new"),
        (["bench", "--shots", "0"], "'0' is not a whole number of 1 or more"),
        (["bench", "--model", "ViT-B-99"], "ViT-B-99"),
        (["bench", "--seeds", "1", "1"], "each once"),
        (["bench", "--shots-list", "2", "4"], "for --protocol few-shot"),
        (["bench", "--targets", "noto"], "for --protocol cross-dataset"),
        (["bench", "--suite", "coop12"], "coop11"),
        (["bench", "--suite", "coop11"], "pass --root DIR"),
        (["bench", "--dataset", "dtd"], "--root DIR"),
        (["bench", "--protocol", "cross-dataset", "--targets", "emoji-concept"], "emoji-concepts/"),
        (["bench", "--protocol", "domain-shift", "--targets", "notos"], "must name icon sets"),
        (["bench", "--ogen", "--no-ogen"], "not allowed with argument --ogen"),
        (["bench", "--ogen", "--hosts", "zero_shot"], "none of the hosts ['zero_shot'] takes OGEN"),
        (["bench", "--no-ogen", "--held-out-names"], "--no-ogen"),
        (["bench", "--preset", "papers"], "released-code"),
        (["bench", "--ogen-set", "itterations=5"], "no setting 'itterations'; did you mean 'iterations'?"),
        (["bench", "--ogen-set", "quux=5"], "no setting 'quux'; known are generator"),
        (["bench", "--ogen-set", "rows"], "'rows' is not KEY=VALUE"),
        (["bench", "--ogen-set", "rows=many"], "'rows=many': rows takes a whole number"),
        (["bench", "--ogen-set", "rows=2.5"], "rows takes a whole number"),
        (["bench", "--ogen-set", "joint=1"], "joint takes true or false"),
        (["bench", "--ogen-set", "zero_shot_kl=NaN"], "zero_shot_kl takes a number"),
        (["bench", "--ogen-set", "teacher=[1]"], "teacher takes a word or null"),
        (["bench", "--ogen-set", "teacher=guru"], "teacher='guru': must be one of"),
        (["bench", "--ogen-set", "generator=joined"], "'joined': must be one of None, joint"),
        (["train", "--unknown", "banana"], "--unknown is an option of OGEN; add --ogen"),
        (["train", "--host", "promptkd", "--set", "teachers=x"], "no setting 'teachers'; did you mean 'teacher'?"),
        (["train", "--host", "prograd", "--set", "strenght=1"], "did you mean 'strength'?"),
        (["train", "--host", "prograd", "--set", "n_contexts=1"], "did you mean 'n_context'?"),  # CoOp's own
        (["train", "--host", "zero_shot", "--set", "k"], "'k' is not KEY=VALUE"),
        (["train", "--preset", "paper"], "--preset is an option of OGEN"),
        (["train", "--ogen", "--host", "zero_shot"], "zero_shot has nothing to train"),
        (["train", "--ogen", "--unknown", "a", "--unknown-file", "b"], "not allowed with argument --unknown"),
        (["train", "--ogen", "--unknown-file", "nowhere.txt"], "nowhere.txt"),
        (["train", "--ogen", "--ogen-set", "warmup=0.5"], "warmup needs joint=True"),
        (["train", "--lr", "-1"], "lr=-1.0"),
        (["predict", "nowhere", __file__], "nowhere is not a saved run"),
        (["report", "nowhere.json"], "nowhere.json: there is no such file"),
        (["convert", "openai", "nowhere.pt"], "nowhere.pt"),
        (["bench", "--device", "warp"], "warp"),
        (["frobnicate"], "frobnicate"),
        ([], "COMMAND"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, message: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in one_line(capsys)
    assert list(tmp_path.iterdir()) == []  # no folder is left of a command that was refused


@pytest.mark.slow
def test_python_dash_m(tmp_path) -> None:
    assert python("-m", "ogenlib", "data", "list").count("emoji-concepts/") == 8


def test_a_command_leaves_the_logging_of_its_caller_alone(capsys) -> None:
    logger = logging.getLogger("ogenlib")
    before = (logger.level, list(logger.handlers), logging.getLogger().level)
    assert main(["report", "nowhere.json", "--quiet"]) == 2
    assert (logger.level, list(logger.handlers), logging.getLogger().level) == before
