"""Options from a file: what is printed is read again, and what is in a file is checked as the command line is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ogenlib.bench.config import BenchConfig
from ogenlib.cli.config_file import apply_config, dump_config
from ogenlib.cli.main import main
from ogenlib.cli.options import values_of
from ogenlib.cli.parser import COMMANDS, build_parser
from ogenlib.cli.train import config_of
from ogenlib.runs.config import RunConfig

NEEDED = {
    "eval": ["run"], "predict": ["run", "a.png"], "export": ["run"], "words": ["run"], "detect": ["run", "a.png"],
    "data": ["list"], "report": ["results"], "convert": ["openai", "a.pt"],
}  # fmt: skip


def parsed(*words: str):
    args = build_parser().parse_args(words)
    apply_config(args.parser, args)
    return args


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_what_is_printed_is_read_again(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, *NEEDED.get(command, [])]
    assert main([*words, "--print-config", "--out", str(tmp_path / "never")]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(printed)
    assert main([*words, "--config", str(tmp_path / "config.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]  # nothing was run


def test_a_file_stands_for_the_options_in_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "protocol: few-shot\nhosts: [coop, taskres]\nshots-list: [1, 2]\nlr: 0.01\nogen: 'yes'\nroot: data\n"
        "ogen_set: {k: 5, teacher: null, synthesize: unknown}\nskip_bad: true\nseeds: [3]\n"
    )
    config = BenchConfig(**values_of(parsed("bench", "--config", str(file)), BenchConfig))
    assert config == BenchConfig(
        protocol="few-shot",
        hosts=("coop", "taskres"),
        shots_list=(1, 2),
        settings={"lr": 0.01},
        ogen="yes",
        root=Path("data"),
        ogen_settings={"k": 5, "teacher": None, "synthesize": "unknown"},
        skip_bad=True,
        seeds=(3,),
    )
    words = ["bench", "--config", str(file), "--hosts", "coop", "--no-ogen", "--ogen-set", "k=2"]
    nearer = values_of(parsed(*words), BenchConfig)
    assert (nearer["hosts"], nearer["ogen"], nearer["ogen_settings"]) == (("coop",), "no", {"k": 2})


def test_of_a_training_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("host: CoOp\nset: {n_context: 2}\nshots: all\nogen: true\nunknown: [fox]\n")
    config = config_of(parsed("train", "--config", str(tmp_path / "config.yaml")))
    assert config == RunConfig(host="coop", options={"n_context": 2}, shots=0, ogen=True, unknown=("fox",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "has no option 'epoch'; did you mean 'epochs'?"),
        ("help: true", "has no option 'help'"),
        ("epochs: 0", "epochs: '0' is not a whole number of 1 or more"),
        ("epochs: [1]", "epochs: [1] is neither a word nor a number"),
        ("seeds: 1", "seeds: 1 is no list, as in [1, 2]"),
        ("precision: fp8", 'precision: \'fp8\' is not one of "fp32", "bf16", "fp16"'),
        ("smoke: 1", "smoke: 1 is not one of true, false"),
        ("ogen: maybe", "ogen: 'maybe' is not one of \"both\""),
        ("ogen_set: [k]", "is no mapping of settings"),
        ("ogen_set: {k: many}", "'k=many': k takes a whole number"),
        ("model: ''", "model: '' is empty"),
        ("- epochs", "should hold options as YAML"),
        ("3: 4", "should hold options as YAML"),
        ("a: [", "is no YAML"),
        ("!!python/object/apply:os.system ['touch never']", "is no YAML"),
        ("shots: 4\nprotocol: few-shot", "--shots has no effect: few-shot"),
    ],
)
def test_refused_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert main(["bench", "--config", "config.yaml"]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_no_file_no_text_too_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    for name, message in (("none", "there is no such file"), ("bytes", "is no YAML"), ("large", "has 1048577 bytes")):
        assert main(["bench", "--config", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_debug_in_a_file_shows_where(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("debug: true\n")
    with pytest.raises(FileNotFoundError):
        main(["predict", "run", str(tmp_path / "none.png"), "--config", str(tmp_path / "config.yaml")])


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=30, deadline=None)
@given(
    context=NAMES,
    unknown=st.lists(NAMES, min_size=1, max_size=3),
    epochs=st.integers(1, 2**31 - 1),
    lr=st.floats(1e-12, 1e6),
    value=st.one_of(st.integers(-5, 5), st.booleans(), st.none(), NAMES, st.lists(NAMES, max_size=2)),
)
def test_any_values_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, context: str, unknown: list[str], epochs: int, lr: float, value: object
) -> None:
    args = build_parser().parse_args(
        ["train", "--epochs", str(epochs), "--lr", repr(lr), "--set", f"key={json.dumps(value)}", "--ogen"]
    )
    args.context, args.unknown = context, unknown
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(dump_config(args.parser, args), encoding="utf-8")
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)
    again = parsed("train", "--config", str(file))
    for name in ("context", "unknown", "epochs", "lr", "set", "ogen"):
        assert getattr(again, name) == getattr(args, name), name
