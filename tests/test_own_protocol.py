"""A protocol that nothing in the library knows: declared in one place, it runs, and its report speaks its words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ogenlib.bench import BenchConfig, run_bench
from ogenlib.bench.protocols import PROTOCOLS, Outcome, Part, Plan, ProtocolInfo, Shown, list_protocols, register
from ogenlib.bench.protocols import Tested as Banks
from ogenlib.data import load_dataset
from ogenlib.evaluate import scores as evaluate
from ogenlib.hosts import Host
from ogenlib.report.page import build_report
from ogenlib.report.text import summary_text
from ogenlib.results.tables import METRICS


@dataclass(frozen=True)
class SureJudge:
    """Scores all test images, and the half of them that a host is surest of."""

    part: Part

    def measure(self, host: Host, tested: Banks) -> dict[str, float]:
        return {}

    def outcome(self, host: Host, tested: Banks) -> Outcome:
        bank = tested.of(host)[0]
        logits, labels = evaluate.predict_logits(host, bank, self.part.images.classnames), bank.labels.cpu()
        sure = logits.softmax(1).max(1).values.topk(len(labels) // 2).indices
        scores = {"base": evaluate.accuracy(logits, labels), "new": evaluate.accuracy(logits[sure], labels[sure])}
        return Outcome(
            [{"dataset": self.part.dataset, "domain": "noto", **dict.fromkeys(METRICS), **scores}],
            confusions=[],
            per_class=[],
        )


def sure_plan(config: BenchConfig) -> Plan:
    data = load_dataset(config.dataset, test_domains=["noto"])
    part = Part(data.name, data.test)
    return Plan(config.protocol, data, data.classnames, (), "noto", (part,), SureJudge(part), (config.shots,))


def no_zeros(config: BenchConfig) -> None:
    if config.shots == 0:
        raise ValueError("surest counts shots")


SURE = ProtocolInfo(
    "surest",
    "how right a host is where it is sure",
    sure_plan,
    takes=("alphas",),
    no_suite="asks about one dataset",
    new_names=False,
    curves=False,
    refuses=lambda cls: f"{cls.info.name} trains no prompt" if cls.info.kind != "prompt" else "",
    smoke=lambda config: {"alphas": (0.0, 1.0)},
    check=no_zeros,
    shown=Shown(
        {"base": "all test images", "new": "the surest half"},
        base="accuracy on all test images",
        new="accuracy on the half that a host is surest of",
        trained=("kind", "kinds"),
        sections=("summary", "skipped", "card"),
    ),
)


@pytest.fixture
def declared() -> Iterator[None]:
    register(SURE)
    yield
    PROTOCOLS.pop("surest", None)


def small(**changes: Any) -> BenchConfig:
    given = {"protocol": "surest", "hosts": ("coop",), "epochs": 1, "shots": 1, "views": 1, "seeds": (1,), "ogen": "no"}
    return BenchConfig(**{**given, **changes})


def test_it_runs_to_results_and_a_report(declared: None, tmp_path: Path) -> None:
    document = run_bench(small(), tmp_path)
    assert document["protocol"]["name"] == "surest" and "published" not in document
    assert all(row["new"] > row["base"] and row["H"] is None for row in document["rows"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "on all test images" in page and "on the surest half" in page and "51 kinds" in page
    assert "half that a host is surest of" in page and "Protocol card" in page and "Paired tests" not in page
    assert summary_text(document).startswith("emoji-categories / noto\n")
    # For whoever has not declared it the file is foreign: shown whole, in the words of base and new names.
    del PROTOCOLS["surest"]
    foreign = build_report(json.loads((tmp_path / "results.json").read_text(encoding="utf-8")))
    assert "on base names" in foreign and "51 names" in foreign and "Paired tests" in foreign


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("noto",)}, "targets=.* for --suite; surest tests the dataset it trains on"),
        ({"retention": ("x",)}, "are for --protocol domain-shift, not surest; leave them out"),
        ({"protocol": "few-shot", "alphas": (0.0, 1.0)}, "for --protocol domain-shift and surest, not few-shot"),
        ({"suite": "emoji8"}, "--protocol surest asks about one dataset; .* with --dataset in place of --suite"),
        ({"hosts": ("zero_shot", "taskres")}, "taskres trains no prompt; --protocol surest compares zero_shot, coop"),
        ({"ogen": "yes", "held_out": True}, "no new names with --protocol surest; leave it out"),
        ({"measure_every": 2}, "--protocol surest measures after training only; leave it out"),
        ({"shots": 0}, "surest counts shots"),
        ({"protocol": "sure"}, "'sure' is not available; available: base-to-new, .*, surest"),
    ],
)
def test_its_declaration_is_what_is_refused(declared: None, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_its_smoke_run_is_what_it_says(declared: None) -> None:
    quick = small(epochs=9, shots=9).smoke()
    assert (quick.alphas, quick.epochs, quick.shots, quick.test_domains) == ((0.0, 1.0), 4, 4, None)
    assert quick.all_shots() == (4,) and SURE in list_protocols()


def test_a_name_is_declared_once(declared: None) -> None:
    register(replace(SURE, about="the same cell of a notebook again"))
    for name in ("few-shot", "ood"):
        with pytest.raises(ValueError, match=rf"protocols\.\w+ already; .*del PROTOCOLS\['{name}'\]"):
            register(replace(SURE, name=name))
    with pytest.raises(ValueError, match="called 'surest', not 'sure'"):
        PROTOCOLS["sure"] = SURE
    with pytest.raises(ValueError, match="no section 'sumary'; it has detectors, "):
        Shown(sections=("sumary",))
    with pytest.raises(ValueError, match="listing='tables': must be one of halves, "):
        Shown(listing="tables")


def test_names_and_defaults_are_known_without_torch() -> None:
    code = (
        "import sys; from ogenlib.bench.config import PROTOCOLS, SUITES, BenchConfig; import ogenlib.bench.protocols\n"
    )
    code += "print('ood' in PROTOCOLS, len(PROTOCOLS), SUITES, BenchConfig.epochs)\n"
    code += "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True 7 ('coop11', 'emoji8') 50", "[]"]
