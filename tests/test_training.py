"""One training from settings to a saved run, in a program as on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ogenlib.cli.main import main
from ogenlib.data import load_dataset
from ogenlib.hosts import CoOp
from ogenlib.runs import RunConfig, assemble, load_run, train_run
from ogenlib.towers import Backbone

NAMES = ("dog", "red apple", "train")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes, three pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    images = load_dataset("emoji-categories").train
    for name in ("fruit", "clock", "mammal"):
        (root / name).mkdir()
        own = [i for i, item in enumerate(images) if images.classnames[item.label].endswith(name)]
        for n in range(3):
            images.open(own[n]).save(root / name / f"{n}.png")
    return root


def config_for(pictures: Path) -> RunConfig:
    return RunConfig(
        dataset=str(pictures),
        names=("clock", "fruit"),
        epochs=2,
        views=1,
        ogen=True,
        unknown=("mammal",),
        ogen_settings={"iterations": 5},
        options={"class_specific": True},
        settings={"lr": 0.01},
    )


def test_a_program_trains_what_the_command_line_trains(pictures: Path, tmp_path: Path) -> None:
    trained = train_run(config_for(pictures), tmp_path / "program")
    assert trained is not None and (trained.images, trained.skipped) == (4, [])
    (tmp_path / "names.txt").write_text("clock\nfruit\n")
    command = ["train", "--dataset", str(pictures), "--names", str(tmp_path / "names.txt"), "--epochs", "2"]
    command += [
        "--views",
        "1",
        "--ogen",
        "--unknown",
        "mammal",
        "--ogen-set",
        "iterations=5",
        "--set",
        "class_specific=true",
    ]
    assert main([*command, "--lr", "0.01", "--quiet", "--out", str(tmp_path / "command")]) == 0
    a, b = load_run(tmp_path / "program"), load_run(tmp_path / "command")
    assert a.config() == b.config() and a.names == ("clock", "fruit")
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name
    cards = [json.loads((tmp_path / run / "run.json").read_text())["extra"] for run in ("program", "command")]
    assert cards[0]["command"] == "" and cards[1]["command"].startswith("ogen")
    same = ("dataset", "data_hash", "shots", "seed", "versions", "skipped")
    assert [cards[0][key] for key in same] == [cards[1][key] for key in same]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "coup"}, "did you mean 'coop'"),
        ({"settings": {"lr": -1.0}}, "lr=-1.0"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"ogen_settings": {"warmup": 0.5}}, "warmup needs joint=True"),
        ({"preset": "papers"}, "preset 'papers' is unknown"),
        ({"host": "zero_shot"}, "zero_shot has nothing to train"),
        ({"pool": "somewhere"}, "--pool somewhere: coop cannot use it"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_read(
    changes: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr("ogenlib.runs.training.load_backbone", refuse)
    with pytest.raises(ValueError, match=message):
        train_run(replace(RunConfig(ogen=True), **changes), tmp_path)  # type: ignore[arg-type]


def test_the_options_of_the_data_give_way_to_those_that_are_given(clip: Backbone) -> None:
    suggested = assemble("coop", clip, NAMES, ["an icon of a {}."])
    assert isinstance(suggested, CoOp) and suggested.config()["context"] == "an icon of a"
    given = assemble("coop", clip, NAMES, ["an icon of a {}."], {"context": "a"}, ogen={"preset": "zero-shot-kl"})
    assert given.inner.config()["context"] == "a" and given.info is suggested.info
    assert given.config()["ogen"]["preset"] == "zero-shot-kl" and given.config()["ogen"]["other_names"] == []
