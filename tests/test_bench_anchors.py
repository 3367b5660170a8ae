"""ARF from the command line and in benchmarks: captions and retrieved pairs of the data, or of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ogenlib.anchors import emoji_pool, write_captions
from ogenlib.bench.runner import BenchConfig, run_bench
from ogenlib.cli.main import main
from ogenlib.data import Dataset, load_dataset
from ogenlib.runs.saved import load_run

pytestmark = pytest.mark.slow

CANDIDATES = 12


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen of the embedded candidates: encoding all of them takes longer than the tests."""

    def few(data: Dataset, *args: Any, **options: Any) -> Any:
        images, told = emoji_pool(data, ["twemoji"], **options)
        return images.subset(range(0, len(images), len(images) // CANDIDATES)), told

    monkeypatch.setattr("ogenlib.anchors.source.emoji_pool", few)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four pictures in a folder; captions of the training images; candidates."""
    root = tmp_path_factory.mktemp("pictures")
    images = load_dataset("emoji-categories").train
    for name in ("fruit", "clock", "bird"):
        rows = [i for i, item in enumerate(images) if images.classnames[item.label] == name][:4]
        folder = root / ("candidates" if name == "bird" else f"mine/{name}")
        folder.mkdir(parents=True)
        for n, row in enumerate(rows):
            images.open(row).save(folder / f"{n}.png")
    write_captions(root / "candidates" / "captions.json", {f"{n}.png": f"bird {n}" for n in range(4)})
    write_captions(root / "captions.csv", {k: f"picture {k}" for k in load_dataset(root / "mine").train.keys})
    write_captions(root / "names.json", {"fruit": ["a fruit", "food"], "clock": ["a clock"]})
    return root


def arf(**changes: Any) -> BenchConfig:
    given = {
        "hosts": ("ARF",),
        "dataset": "emoji-concepts/activities",
        "test_domains": ("noto",),
        "ogen": "no",
        "epochs": 1,
        "shots": 1,
        "views": 1,
        "seeds": (1,),
        "settings": {"batch_size": 64},
    }
    return BenchConfig(**{**given, **changes})


def test_base_to_new_needs_nothing_besides(tmp_path: Path) -> None:
    document = run_bench(arf(), tmp_path)
    card = document["protocol"]
    assert card["anchors"]["captions"]["from"].startswith("emoji catalogue")
    assert card["anchors"]["candidates"]["images"] >= CANDIDATES
    made = card["hosts"]["arf"]["made_with"]
    assert made["captions"]["images"] == 32 and 0 < made["anchors"]["pairs"] <= CANDIDATES + 1
    assert [row["host"] for row in document["rows"]] == ["zero_shot", "arf"]
    (pool,) = (tmp_path / "banks").glob("candidates-*")
    before = (pool / "manifest.json").stat().st_mtime_ns
    again = run_bench(arf(), tmp_path)
    assert again["rows"] == document["rows"] and (pool / "manifest.json").stat().st_mtime_ns == before


def test_retrieval_takes_pairs_only(pictures: Path, tmp_path: Path) -> None:
    sides = {"train": "fruit", "test": "clock"}
    images = [
        {"filename": f"{name}/{n}.png", "split": split, "sentences": [{"raw": f"{name} {n}"}]}
        for split, name in sides.items()
        for n in range(4)
    ]
    split = pictures / "dataset_pictures.json"
    split.write_text(json.dumps({"images": images}), encoding="utf-8")
    config: dict[str, Any] = {"protocol": "retrieval", "dataset": str(split), "root": pictures / "mine"}
    config["test_domains"] = None
    document = run_bench(arf(**config, pool=pictures / "candidates"), tmp_path / "pairs")
    made = document["protocol"]["hosts"]["arf"]["made_with"]
    assert made["captions"] is None and made["anchors"]["pairs"] == 4
    assert document["protocol"]["anchors"]["captions"] is None
    assert next(r for r in document["rows"] if r["host"] == "arf")["image_to_text_r5"] == 100  # of four
    with pytest.raises(ValueError, match=r"arf trains with retrieved pairs besides, and pictures has no candidates"):
        run_bench(arf(**config), tmp_path / "none")


def test_ones_own_images(pictures: Path, tmp_path: Path) -> None:
    command = ["--dataset", str(pictures / "mine"), "--epochs", "1", "--views", "1", "--quiet"]
    files = ["--captions", str(pictures / "captions.csv"), "--pool", str(pictures / "candidates")]
    assert main(["train", "--host", "arf", *command, *files, "--out", str(tmp_path / "run")]) == 0
    made = load_run(tmp_path / "run").config()["made_with"]
    assert made["captions"]["images"] >= 4 and made["anchors"]["pairs"] == 4
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["extra"]["anchors"]["candidates"]["from"] == "candidates"
    names = ["--captions", str(pictures / "names.json"), "--no-ogen", "--seeds", "1", "--hosts", "flyp", "full-ft"]
    assert main(["bench", *command, *names, "--out", str(tmp_path / "table")]) == 0
    hosts = json.loads((tmp_path / "table" / "results.json").read_text(encoding="utf-8"))["protocol"]["hosts"]
    assert hosts["flyp"]["texts"] == 1 and "texts" not in hosts["full_ft"]  # one base name of two


def test_what_is_missing_is_one_line(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = ["--dataset", str(pictures / "mine"), "--out", str(tmp_path), "--quiet"]
    for command, message in (
        (["train", "--host", "arf", *mine], "give --captions FILE"),
        (["bench", "--hosts", "arf", *mine], "give --captions FILE"),
        (["bench", "--hosts", "arf", *mine, "--pool", str(pictures / "mine")], "holds no captions.json or"),
        (["bench", "--hosts", "coop", "--pool", str(pictures)], "coop cannot use it"),
        (["train", "--host", "flyp", *mine, "--captions", str(pictures / "captions.csv")], "use those as keys"),
        (["train", "--host", "flyp", *mine, "--captions", "nowhere.csv"], "no such file of captions"),
        (["bench", "--protocol", "retrieval", "--hosts", "starft"], "starft puts phrases behind class names"),
    ):
        assert main(command) == 2, command
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and message in err, err
