"""Pools: rows over parts, files, shards by several processes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pool_world import ColourClip, made_pool, pictures, unit

from ogenlib.anchors import CandidatePool, exact_top_k, extract_pool, join_shards
from ogenlib.data import FeatureBank


def test_rows_are_numbered_through_all_parts() -> None:
    images, texts = unit(10), unit(10, seed=1)
    whole = made_pool(images, texts=texts)
    parts = [
        CandidatePool.from_features(
            images[a:b],
            [f"picture {i}" for i in range(a, b)],
            texts[a:b],
            [f"row/{i}" for i in range(a, b)],
            dtype=torch.float32,
        )
        for a, b in ((0, 3), (3, 4), (4, 10))
    ]
    joined = CandidatePool.join(parts)
    rows = [9, 0, 3, 4, 3]
    assert len(joined) == 10 and joined.has_texts and joined.embed_dim == 16
    assert joined.captions(rows) == [f"picture {i}" for i in rows] == whole.captions(rows)
    assert joined.keys(rows) == [f"row/{i}" for i in rows]
    for side, features in (("images", images), ("texts", texts)):
        torch.testing.assert_close(joined.features(rows, side), features[rows])
        expected = exact_top_k(unit(4, seed=2), [(0, features)], 5)
        for pool, block in ((whole, 4), (joined, 2), (joined, 100)):
            scores, found = pool.search(unit(4, seed=2), 5, side, block)
            torch.testing.assert_close(scores, expected[0])
            assert torch.equal(found, expected[1])


def test_a_saved_pool_is_the_same(tmp_path: Path) -> None:
    pool = CandidatePool.from_features(unit(6), ["é", "", "b", "c", "d", "e"], fingerprint={"made": "here"})
    pool.save(tmp_path / "pool.safetensors")
    again = CandidatePool.load(tmp_path / "pool.safetensors", expect={"made": "here"})
    assert torch.equal(again.parts[0].images, pool.parts[0].images) and again.parts[0].images.dtype == torch.float16
    assert again.captions(range(6)) == ["é", "", "b", "c", "d", "e"] and not again.has_texts
    with pytest.raises(ValueError, match="made is here, expected there"):
        CandidatePool.load(tmp_path / "pool.safetensors", expect={"made": "there"})


def test_extraction_is_what_the_model_says(tmp_path: Path) -> None:
    images, captions = pictures(7)
    clip = ColourClip()
    pool = extract_pool(clip, images, captions, tmp_path / "pool", dtype=torch.float32)
    bank = FeatureBank.extract(ColourClip(), images)
    torch.testing.assert_close(pool.features(range(7)), bank.features[:, 0])
    torch.testing.assert_close(pool.features(range(7), "texts"), clip.encode_text(list(captions.values())))
    assert pool.keys(range(7)) == images.keys and pool.captions([2]) == ["a picture of colour 2"]
    assert sorted(p.name for p in (tmp_path / "pool").iterdir() if p.name != ".locks") == [
        "manifest.json",
        "plan.json",
        "shard-00000-of-00001.safetensors",
    ]
    again = ColourClip()
    assert len(extract_pool(again, images, captions, tmp_path / "pool", dtype=torch.float32)) == 7
    assert again.encoded == 0 and again.texts == []
    without = extract_pool(ColourClip(), images, captions, tmp_path / "images", texts=False)
    with pytest.raises(ValueError, match="no features of its texts"):
        without.search(unit(1, 8), 1, "texts")


class Stop(Exception):
    """Ends a process at a barrier."""


def ranks(clips: list[ColourClip], folder: Path, count: int, **options: Any) -> None:
    """All of the work but the last barrier's, rank after rank; rank 0's plan first."""
    images, captions = pictures(11)

    def stops_at(barrier: int) -> Any:
        waits = iter(range(1, 4))

        def wait() -> None:
            if next(waits) == barrier:
                raise Stop

        return wait

    for rank, barrier in ((0, 1), *((rank, 2) for rank in range(1, count))):
        with pytest.raises(Stop):
            extract_pool(
                clips[rank], images, captions, folder, rank=rank, count=count, barrier=stops_at(barrier), **options
            )
    extract_pool(clips[0], images, captions, folder, rank=0, count=count, barrier=lambda: None, **options)


def test_several_processes_make_the_pool_of_one(tmp_path: Path) -> None:
    images, captions = pictures(11)
    alone = extract_pool(ColourClip(), images, captions, tmp_path / "alone")
    clips = [ColourClip() for _ in range(3)]
    ranks(clips, tmp_path / "shared", 3)
    shared = CandidatePool.load(tmp_path / "shared")
    assert [clip.encoded for clip in clips] == [3, 4, 4] and len(shared.parts) == 3
    assert torch.equal(shared.features(range(11)), alone.features(range(11)))
    assert torch.equal(shared.features(range(11), "texts"), alone.features(range(11), "texts"))
    assert shared.keys(range(11)) == alone.keys(range(11)) and shared.fingerprint == alone.fingerprint
    assert json.loads((tmp_path / "shared" / "manifest.json").read_text())["rows"] == 11


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    images, captions = pictures(9)
    options: dict[str, Any] = {"batch_size": 1, "chunk_views": 2}
    with pytest.raises(KeyboardInterrupt):
        extract_pool(ColourClip(die_at=5), images, captions, tmp_path / "pool", **options)
    with pytest.raises(FileNotFoundError, match="no finished pool; run the same extraction again"):
        CandidatePool.load(tmp_path / "pool")
    with pytest.raises(FileNotFoundError, match="1 of 1 shards are not finished"):
        join_shards(tmp_path / "pool")
    clip = ColourClip()
    pool = extract_pool(clip, images, captions, tmp_path / "pool", **options)
    assert clip.encoded == 5 and len(pool) == 9  # two parts of two were finished


def test_bad_pictures_are_left_out_of_both_sides(tmp_path: Path) -> None:
    images, captions = pictures(3)
    from ogenlib.data import ImageSet, Item

    bad = tmp_path / "bad.png"
    bad.write_bytes(b"broken")
    mixed = ImageSet([images[0], Item(str(bad), 0, "", "bad"), images[2]], ["colour"])
    pool = extract_pool(ColourClip(), mixed, {**captions, "bad": "?"}, tmp_path / "pool", skip_bad=True)
    assert pool.captions(range(2)) == ["a picture of colour 0", "a picture of colour 2"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    images, captions = pictures(4)
    with pytest.raises(ValueError, match=r"1 of 4 images have no caption, the first \['colour/002'\]"):
        extract_pool(ColourClip(), images, {**captions, "colour/002": " "}, tmp_path / "pool")
    extract_pool(ColourClip(), images, captions, tmp_path / "pool")
    with pytest.raises(ValueError, match="weights_hash is 0, expected 1"):
        extract_pool(ColourClip(1), images, captions, tmp_path / "pool")
    with pytest.raises(ValueError, match="captions is"):
        extract_pool(ColourClip(), images, {**captions, "colour/000": "another"}, tmp_path / "pool")
    assert len(extract_pool(ColourClip(1), images, captions, tmp_path / "pool", overwrite=True)) == 4
    with pytest.raises(ValueError, match="rank is 2 of count 2"):
        extract_pool(ColourClip(), images, captions, tmp_path / "other", rank=2, count=2)
    pool = made_pool(unit(3))
    for rows in ([3], [-1], [[0]]):
        with pytest.raises(ValueError, match="from 0 to 2"):
            pool.features(rows)
    with pytest.raises(ValueError, match="side='text': must be one of images, texts"):
        pool.search(unit(1), 1, "text")
    with pytest.raises(ValueError, match=r"rows \[1\] are zero or not finite"):
        made_pool(torch.tensor([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="as many keys and captions"):
        CandidatePool.from_features(unit(2), ["one"])
    with pytest.raises(ValueError, match="differ in width"):
        CandidatePool.join([made_pool(unit(2)), made_pool(unit(2, 8))])
    with pytest.raises(ValueError, match="the pool is empty"):
        CandidatePool([], {})
    with pytest.raises(ValueError, match="has 2 parts"):
        CandidatePool.join([pool, pool]).save(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no such file, which should be a pool"):
        CandidatePool.load(tmp_path / "nothing.safetensors")
    FeatureBank.extract(ColourClip(), images, path=tmp_path / "bank.safetensors")
    with pytest.raises(ValueError, match="is no pool of format"):
        CandidatePool.load(tmp_path / "bank.safetensors")
