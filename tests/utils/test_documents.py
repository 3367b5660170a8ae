"""JSON that is read is checked; documents tell whether they were changed."""

from __future__ import annotations

import json
import logging
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogenlib.utils.documents import DIGEST, DamagedFile, digest_of, read_document, read_json, write_document, write_json

ASK = {"what": "a card", "fix": "write it again"}


class Card(TypedDict):
    name: str
    numbers: list[int]


def test_a_document_comes_back_and_says_nothing(tmp_path, caplog):
    write_document(tmp_path / "a.json", {"name": "x", "numbers": [1, 2], "more": {"3": 0.5}})
    with caplog.at_level(logging.WARNING):
        assert read_document(tmp_path / "a.json", Card, **ASK) == {"name": "x", "numbers": [1, 2]}
    assert caplog.messages == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=4))
def test_any_document_survives_its_file(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("d") / "a.json"
    write_document(path, document)
    assert read_document(path, dict[str, Any], **ASK) == document


def test_order_and_spaces_do_not_matter(tmp_path):
    write_document(tmp_path / "a.json", {"b": 1, "a": [1, 2]})
    loaded = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(dict(reversed(loaded.items())), indent=7))
    assert read_document(tmp_path / "a.json", dict[str, Any], **ASK) == {"a": [1, 2], "b": 1}


@pytest.mark.parametrize("change", [{"b": 2}, {"c": None}, {"a": [2, 1]}, {DIGEST: "0" * 64}, {DIGEST: 3}])
def test_a_change_is_told(tmp_path, change):
    write_document(tmp_path / "a.json", {"b": 1, "a": [1, 2]})
    loaded = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**loaded, **change}))
    with pytest.raises(DamagedFile, match=r"a\.json was changed after it was written.*write it again"):
        read_document(tmp_path / "a.json", dict[str, Any], **ASK)


def test_a_document_without_a_digest_opens_with_a_note(tmp_path, caplog):
    write_json(tmp_path / "a.json", {"name": "x", "numbers": []})
    with caplog.at_level(logging.WARNING):
        assert read_document(tmp_path / "a.json", Card, **ASK)["name"] == "x"
    assert "has no digest" in caplog.text


BROKEN = {
    "empty": b"",
    "cut": b'{"name": "x", "numb',
    "utf-8": b'{"name": "\xff", "numbers": []}',
    "nan": b'{"name": "x", "numbers": [NaN]}',
    "infinite": b'{"name": "x", "numbers": [-Infinity]}',
    "deep": b"[" * 100_000,
    "digits": b'{"name": "x", "numbers": [' + b"9" * 10_000 + b"]}",
    "list": b"[1]",
    "missing": b'{"name": "x"}',
    "type": b'{"name": "x", "numbers": ["1"]}',
    "null": b'{"name": null, "numbers": [1]}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_such_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"a\.json.*write it again"):
        read_json(tmp_path / "a.json", Card, **ASK)
    with pytest.raises(DamagedFile, match=r"a\.json.*write it again"):
        read_document(tmp_path / "a.json", Card, **ASK)


def test_places_without_a_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_json(tmp_path / "a.json", **ASK)
    with pytest.raises(DamagedFile, match="is no file"):
        read_json(tmp_path, **ASK)


def test_numbers_that_json_lacks_are_not_written(tmp_path):
    for write in (write_json, write_document):
        with pytest.raises(ValueError):
            write(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_the_digest_is_of_the_content():
    assert digest_of({"a": 1, "b": 2.0}) == digest_of({"b": 2.0, "a": 1}) != digest_of({"a": 1, "b": 2})
