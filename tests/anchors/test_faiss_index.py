"""The approximate index: exact where nothing is approximated, close where it is, refused where it does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pool_world import made_bank, made_pool, unit

from ogenlib.anchors import CandidatePool, FaissIndex, retrieve
from ogenlib.anchors.faiss_file import TAIL
from ogenlib.anchors.faiss_index import choose_kind, choose_lists


def test_the_size_decides_the_kind() -> None:
    assert [choose_kind(n) for n in (1000, 49_999, 50_000, 10**7, 10**7 + 1, 2 * 10**9)] == [
        "flat",
        "flat",
        "ivf",
        "ivf",
        "ivf-pq",
        "ivf-pq",
    ]
    assert [choose_lists(n) for n in (10, 1000, 10**6, 10**8, 2 * 10**9)] == [1, 25, 4096, 32768, 131072]


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'ogenlib\[faiss\]'"):
        FaissIndex.build(made_pool(unit(10)))
    with pytest.raises(ValueError, match="kind='hnsw': must be one of auto, flat, ivf, ivf-pq"):
        FaissIndex.build(made_pool(unit(10)), "hnsw")


@pytest.fixture
def pool() -> CandidatePool:
    """Eight hundred rows around forty centres, in half precision, in two parts."""
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    rows = unit(40, 32).repeat(20, 1) + 0.4 * unit(800, 32, seed=1)
    return CandidatePool.join(
        [CandidatePool.from_features(part, [""] * len(part)) for part in (rows[:300], rows[300:])]
    )


def recall(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found[:, :, None] == exact[:, None]).any(1).float().mean())


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_probing_every_list_is_exact(kind: str, pool: CandidatePool, tmp_path: Path) -> None:
    queries = 2 * unit(17, 32, seed=2)
    scores, rows = pool.search(queries, 5)
    index = FaissIndex.build(pool, kind, lists=8, probe=8, block=100)
    found = index.search(queries, 5)
    torch.testing.assert_close(found[0], scores, rtol=0, atol=2e-3)
    assert recall(found[1], rows) > 0.97  # neighbours that half precision makes equal may swap
    index.save(tmp_path / "index.faiss")
    again = FaissIndex.load(tmp_path / "index.faiss", pool, probe=8)
    assert again.kind == kind and torch.equal(again.search(queries, 5)[1], found[1]) and again.bytes == index.bytes
    bank = made_bank(queries, [i % 2 for i in range(17)], ("a", "b"))
    assert len(set(retrieve(pool, bank, 5, index=index).rows) ^ set(retrieve(pool, bank, 5).rows)) <= 4


def test_many_lists_are_found_by_a_graph(pool: CandidatePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ogenlib.anchors.faiss_index.GRAPH_FROM", 8)
    index = FaissIndex.build(pool, "ivf", lists=8, probe=8)
    import faiss

    assert hasattr(faiss.downcast_index(index.index.quantizer), "hnsw")
    queries = unit(17, 32, seed=2)
    assert recall(index.search(queries, 5)[1], pool.search(queries, 5)[1]) > 0.9


def test_fewer_probes_find_less(pool: CandidatePool) -> None:
    queries = unit(40, 32, seed=2)
    rows = pool.search(queries, 10)[1]
    found = [recall(FaissIndex.build(pool, "ivf", lists=20, probe=p).search(queries, 10)[1], rows) for p in (1, 4, 20)]
    assert found[0] < found[1] < found[2] and found[2] > 0.97
    scores, missing = FaissIndex.build(pool, "ivf", lists=20, probe=1).search(queries, 300)
    assert (missing == -1).any() and torch.equal(missing == -1, scores == -torch.inf)


def test_ranking_again_gives_exact_cosines(pool: CandidatePool, tmp_path: Path) -> None:
    queries = unit(30, 32, seed=2)
    index = FaissIndex.build(pool, "ivf-pq", lists=4, code_bytes=8, probe=4)
    scores, rows = index.search(queries, 5)
    features = torch.nn.functional.normalize(pool.features(rows.flatten()), dim=-1).view(30, 5, 32)
    torch.testing.assert_close(scores, torch.einsum("qd,qkd->qk", queries, features))
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    exact = pool.search(queries, 5)[1]
    plain = FaissIndex(index.index, pool, "ivf-pq", probe=4, refine=1).search(queries, 5)[1]
    assert recall(plain, exact) < recall(rows, exact)
    index.save(tmp_path / "index.faiss")
    assert FaissIndex.load(tmp_path / "index.faiss", pool).refine == 4


def test_what_does_not_fit_is_refused(pool: CandidatePool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lists=900: must be 1 to 800"):
        FaissIndex.build(pool, "ivf", lists=900)
    with pytest.raises(ValueError, match="code_bytes=5: must divide the 32 dimensions"):
        FaissIndex.build(pool, "ivf-pq", code_bytes=5)
    index = FaissIndex.build(pool)
    assert index.kind == "flat"
    with pytest.raises(ValueError, match="the index holds 800 rows of 32 dimensions, the pool 10 of 16"):
        FaissIndex(index.index, made_pool(unit(10)), "flat")
    with pytest.raises(ValueError, match="probe=0"):
        FaissIndex(index.index, pool, "flat", probe=0)
    with pytest.raises(ValueError, match=r"queries \(1, 16\)"):
        index.search(unit(1), 3)
    with pytest.raises(FileNotFoundError, match="no such index"):
        FaissIndex.load(tmp_path / "none", pool)
    (tmp_path / "bad").write_bytes(b"no index")
    with pytest.raises(ValueError, match="is no faiss index"):
        FaissIndex.load(tmp_path / "bad", pool)


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf-pq"])
def test_changed_files_are_refused(kind: str, pool: CandidatePool, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "index.faiss"
    FaissIndex.build(pool, kind, lists=4, code_bytes=8).save(path)
    whole = path.read_bytes()
    FaissIndex.load(path, pool)
    assert not caplog.records
    path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(ValueError, match=r"index.faiss was changed.*FaissIndex.build"):
        FaissIndex.load(path, pool)
    path.write_bytes(whole[:-TAIL])  # as before indexes had digests
    assert FaissIndex.load(path, pool).kind == kind and "has no digest" in caplog.text
    path.write_bytes(whole[:600])
    with pytest.raises(ValueError, match=r"index.faiss: is no faiss index"):
        FaissIndex.load(path, pool)
    path.write_bytes(b"IHNf" + whole[4:])
    with pytest.raises(ValueError, match="is no faiss index of the kinds flat, ivf, ivf-pq"):
        FaissIndex.load(path, pool)
