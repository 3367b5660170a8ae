"""``ogen report``: results documents with and without a digest, and those that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.places import RESULTS
from ogenlib.cli.main import main
from ogenlib.results import SCHEMA, read_results
from ogenlib.utils.documents import DIGEST, digest_of


def said(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


def document() -> dict[str, Any]:
    row = {"dataset": "d", "domain": "x", "host": "coop", "ogen": False, "seed": 1, "base": 50.0, "new": None}
    entry = {"dataset": "d", "domain": "x", "host": "coop", "ogen": False, "n_seeds": 1, "base": [50.0, None]}
    return {
        "schema": "ogenlib.results/1",
        "protocol": {"name": "base-to-new", "dataset": "d"},
        "rows": [row],
        "summary": [entry],
    }


def test_report_opens_a_document_without_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(document()))
    assert main(["report", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert "has no digest" in capsys.readouterr().err
    sealed = {**document(), DIGEST: digest_of(document())}
    (tmp_path / "results.json").write_text(json.dumps(sealed))
    assert main(["report", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    sealed["rows"][0]["base"] = 99.9
    (tmp_path / "results.json").write_text(json.dumps(sealed))
    assert main(["report", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "results.json was changed after it was written" in said(capsys)


@pytest.mark.parametrize("key", ["dataset", "domain", "host", "ogen", "seed"])
@pytest.mark.parametrize("value", ["missing", None, [], {"a": 1}])
def test_report_refuses_rows_that_say_not_what_they_are_of(
    key: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = document()
    if value == "missing":
        del broken["rows"][0][key]
    else:
        broken["rows"][0][key] = value
    (tmp_path / "results.json").write_text(json.dumps(broken))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert str(tmp_path / "results.json") in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [
    {"rows": None}, {"rows": [1]}, {"summary": {}}, {"protocol": []}, {"protocol": {"seeds": 3}}, {"curves": 5},
    {"rows": [{**document()["rows"][0], "base": "high"}]}, {"summary": [{**document()["summary"][0], "H": {}}]},
    {"confusions": [{"host": "coop", "ogen": False, "thumbnails": 3}]}, {"schema": "ogenlib.eval/1"},
])  # fmt: skip
def test_report_refuses_parts_of_another_type(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({**document(), **change}))
    assert main(["report", str(tmp_path), "--out", str(tmp_path), "--quiet"]) == 2
    assert "name a results.json that ogen bench wrote" in said(capsys)


def test_published_documents_open_whole() -> None:
    opened = 0
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text())
        if content["schema"] == SCHEMA:
            assert read_results(path) == content
            opened += 1
    assert opened >= 2
