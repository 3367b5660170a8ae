"""``ogen bench --suite``: one benchmark for each dataset of a suite, then one document with the average."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ogenlib.bench.config import BenchConfig
from ogenlib.bench.document import ending
from ogenlib.bench.protocols import PROTOCOLS, plan
from ogenlib.bench.runner import run_bench
from ogenlib.report.page import write_report
from ogenlib.results import tables as results
from ogenlib.results.types import Results
from ogenlib.utils.documents import write_document

# Of a dataset's own card, what differs from dataset to dataset.
OWN = (
    "dataset",
    "data_hash",
    "split_hash",
    "n_base",
    "n_new",
    "templates",
    "train_domains",
    "test_domains",
    "trained_on",
    "tested_on",
    "seconds",
    "home_domain",
    "anchors",
)


def run_suite(config: BenchConfig, out: Path, *, command: str = "", progress: bool = False) -> Results:
    """Run every dataset of ``config.suite`` into ``out/DATASET``, write the summary to `out`, return it.

    A second call goes on where the first stopped, as `run_bench` does.

    Raises:
        FileNotFoundError, ValueError: a dataset of the suite is not there, before anything is trained.
    """
    began = time.perf_counter()
    own = {"targets": (), **PROTOCOLS[config.protocol].suite}
    each = [replace(config, dataset=name, suite=None, **own) for name in config.suite_datasets()]
    if not config.skip_bad:  # else every image would be decoded for the check
        for one in each:
            plan(one)
    documents = [run_bench(one, out / one.dataset, command=command, progress=progress) for one in each]
    result = suite_document(str(config.suite), documents, command, time.perf_counter() - began)
    write_document(out / "results.json", result)
    write_report(result, out / "report.html")
    return result


def suite_document(suite: str, documents: Sequence[Results], command: str, seconds: float) -> Results:
    """One ``ogenlib.results/1`` document of many: rows of all, their average, tests in every setting.

    Curves, confusions and classes stay in the datasets' own documents.
    """
    rows = [row for document in documents for row in document["rows"]]
    cards: list[Mapping[str, Any]] = [document["protocol"] for document in documents]
    means = results.average_rows(rows, "datasets")
    common = {k: v for k, v in cards[0].items() if k not in OWN}
    hosts = {name: host for card in cards for name, host in card["hosts"].items()}
    skipped = [entry for card in cards for entry in card["skipped"]]
    published = PROTOCOLS[cards[0]["name"]].shown.published
    home = cards[0]["home_domain"]
    whole = {
        "schema": results.SCHEMA,
        "protocol": {
            **common,
            "dataset": suite,
            "suite": suite,
            "home_domain": home,
            "train_domains": [home],
            "new_names_known_in_training": any(card["new_names_known_in_training"] for card in cards),
            "hosts": hosts,
            "datasets": {card["dataset"]: {k: card[k] for k in OWN if k in card} for card in cards},
            **ending(skipped, command, seconds),
        },
        "rows": rows,
        "summary": results.summarize([*means, *rows]),
        "tests": results.all_tests([*means, *rows]),
        "published": published(suite, [card["dataset"] for card in cards]) if published else [],
    }
    return cast(Results, whole)
