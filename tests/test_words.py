"""Nearest words: against distances by hand, on the bundled tokenizer and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from use_world import NAMES, trained

import ogenlib as og
from ogenlib.analysis.words import METRICS
from ogenlib.cli.main import main
from ogenlib.cli.words import METRICS as offered
from ogenlib.hosts import CoOp, TextAdapter


def test_the_command_offers_the_distances_that_there_are() -> None:
    assert offered == METRICS  # a copy, for the command line is read without what computes them


def test_a_context_from_words_is_nearest_to_those_words(clip: Any) -> None:
    found = og.nearest_words(CoOp(clip, NAMES, "an icon of a"), k=3)
    assert [t.words[0].text for t in found] == ["an", "icon", "of", "a"]
    assert [t.index for t in found] == [0, 1, 2, 3] and all(t.name is None for t in found)
    assert all(t.words[0].euclidean == pytest.approx(0, abs=1e-6) and len(t.words) == 3 for t in found)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_and_order_by_hand(clip: Any, metric: str) -> None:
    host = trained(clip)
    table = clip.model.token_embedding.weight.float()
    for token in og.nearest_words(og.OGEN(host), k=4, metric=metric):
        row = host.context.detach()[token.index]
        euclidean = (table - row).square().sum(-1).sqrt()
        cosine = 1 - F.cosine_similarity(table, row[None])
        by = euclidean if metric == "euclidean" else cosine
        by[[clip.tokenizer.sot_token_id, clip.tokenizer.eot_token_id, 0]] = torch.inf  # special tokens, padding
        expected = by.topk(4, largest=False)
        assert [w.token for w in token.words] == expected.indices.tolist()
        assert [getattr(w, metric) for w in token.words] == pytest.approx(expected.values.tolist(), abs=1e-5)
        assert [w.cosine for w in token.words] == pytest.approx([float(cosine[w.token]) for w in token.words], abs=1e-5)
        assert token.norm == pytest.approx(float(row.norm()), rel=1e-5)


def test_one_context_a_class(clip: Any) -> None:
    host = CoOp(clip, NAMES, "an icon of a", class_specific=True)
    with torch.no_grad():
        host.context[1, 2] = clip.text.embed(clip.text.tokenize("dog"))[0, 1]
    found = og.nearest_words(host, k=1)
    assert [(t.name, t.index) for t in found] == [(n, i) for n in NAMES for i in range(4)]
    assert [t.words[0].text for t in found if t.name == NAMES[1]] == ["an", "icon", "dog", "a"]


def test_hosts_without_a_context_and_bad_settings(clip: Any) -> None:
    with pytest.raises(ValueError, match="text_adapter has no learned context"):
        og.nearest_words(TextAdapter(clip, NAMES))
    with pytest.raises(ValueError, match=r"k=0: must be from 1 to \d+"):
        og.nearest_words(trained(clip), k=0)
    with pytest.raises(ValueError, match="metric='manhattan'"):
        og.nearest_words(trained(clip), metric="manhattan")


def test_the_command_prints_words_and_json(clip: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(CoOp(clip, NAMES, "an icon of a").save(tmp_path / "run"))
    assert main(["words", run, "--k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[1].startswith("token 2 (length ") and ": icon (0.000), " in lines[1]
    assert main(["words", run, "--k", "2", "--metric", "cosine", "--json", "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "words.json").read_text()) == rows and rows[3]["words"][0]["text"] == "a"
    TextAdapter(clip, NAMES).save(tmp_path / "adapter")
    assert main(["words", str(tmp_path / "adapter")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "no learned context" in err
