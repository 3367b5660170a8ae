"""Retrieval against the rules of its module, one repeat after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pool_world import made_bank, made_pool, pictures, unit

from ogenlib.anchors import AnchorPairs, Anchors, CandidatePool, retrieve
from ogenlib.towers import Backbone


def on_circle(*degrees: float) -> torch.Tensor:
    """Unit rows `(n, 2)`."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_rules_by_hand() -> None:
    # rows:                0   1   2   3    4   5   6
    pool = made_pool(on_circle(0, 10, 11, 40, 50, 90, 99))
    bank = made_bank(on_circle(2, 48, 92), [0, 1, 1], ("a", "b"))
    plain = retrieve(pool, bank, 3, same=None)
    # image 0 finds 0, 1, 2; image 1 finds 4, 3, 2; image 2 finds 5, 6, 4. Row 2 is nearer to image 0 and row 4 to
    # image 1, so that each is kept once.
    assert plain.rows == (0, 1, 2, 4, 5, 6, 3) and plain.labels == (0, 0, 0, 1, 1, 1, 1)
    torch.testing.assert_close(
        torch.tensor(plain.cosines), torch.tensor([2.0, 8, 9, 2, 2, 7, 8]).deg2rad().cos(), rtol=0, atol=1e-6
    )
    assert plain.counts() == {"a": 3, "b": 4} and plain.captions[3] == "picture 4" and plain.keys[0] == "row/0"
    assert retrieve(pool, bank, 3, same=None, per_class=2).rows == (0, 1, 4, 5)
    # rows 1 and 2 are a degree apart: the better one stays
    assert retrieve(pool, bank, 3, same=0.9998).rows == (0, 1, 4, 5, 6, 3)
    # what repeats does not count against the cap
    assert retrieve(pool, bank, 3, same=0.9998, per_class=3).rows == (0, 1, 4, 5, 6)
    assert retrieve(pool, bank, 3, same=None, exclude=["row/4", "train/0"]).rows == (0, 1, 2, 5, 6, 3)
    # row 0, 4 and 5 lie two degrees from a training image
    assert retrieve(pool, bank, 3, same=None, too_near=0.9993).rows == (1, 2, 6, 3)


def test_a_candidate_as_near_to_two_classes_is_the_first_image_s() -> None:
    pool = made_pool(on_circle(10))
    same = made_bank(on_circle(10, 10), [1, 0], ("a", "b"))
    assert retrieve(pool, same, 1).labels == (1,)


def test_an_index_that_finds_too_few_does_not_matter() -> None:
    pool, bank = made_pool(unit(60)), made_bank(unit(12, seed=1), [i % 3 for i in range(12)], ("a", "b", "c"))
    expected = retrieve(pool, bank, 5)

    class Padded:
        """As an index answers whose probed lists hold too few."""

        def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
            scores, rows = pool.search(queries, k)
            nothing = torch.full((len(rows), 2), -1)
            return torch.cat([scores, nothing - torch.inf], 1), torch.cat([rows, nothing], 1)

    found = retrieve(pool, bank, 5, index=Padded())
    assert found.rows == expected.rows and found.labels == expected.labels


def test_several_views_ask_with_their_mean() -> None:
    pool = made_pool(on_circle(0, 30, 60))
    bank = made_bank(on_circle(0), [0], ("a",))
    two = bank.__class__(on_circle(10, 50)[None], bank.labels, bank.classnames, bank.domains, bank.keys, {"data": {}})
    assert retrieve(pool, two, 1).rows == (1,)


def test_anchors_are_saved_and_loaded(tmp_path: Path) -> None:
    pool = CandidatePool.from_features(unit(9), [f"{i}" for i in range(9)], fingerprint={"views": 1})
    found = retrieve(pool, made_bank(unit(3, seed=1), [0, 1, 1], ("a", "b")), 3)
    found.save(tmp_path / "anchors.json")
    assert Anchors.load(tmp_path / "anchors.json") == found
    assert found.settings["per_class"] == 64 and found.pool == {"views": 1}
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json .*a file of anchors .*missing required field"):
        Anchors.load(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match="there is no such file, which should be a file of anchors"):
        Anchors.load(tmp_path / "none.json")


def test_pixels_come_with_the_class_that_asked(clip: Backbone) -> None:
    images, captions = pictures(6)
    anchors = Anchors((4, 1), (1, 0), (0.9, 0.8), ("colour/004", "colour/001"), ("x", "y"), ("a", "b"))
    pairs = AnchorPairs.load(clip, anchors, images, views=2, seed=3)
    assert pairs.pixels.keys == ["colour/004", "colour/001"] and pairs.pixels.labels.tolist() == [1, 0]
    assert pairs.captions == {"colour/004": ("x",), "colour/001": ("y",)} and pairs.pixels.views == 2
    more = {key: (text, "more") for key, text in captions.items()}
    assert AnchorPairs.load(clip, anchors, images, captions=more).captions["colour/001"][1] == "more"
    with pytest.raises(ValueError, match=r"1 of 2 anchors .*\['colour/004'\]"):
        anchors.images(images.subset([0, 1]))
    with pytest.raises(ValueError, match="2 of 2 anchors have no caption"):
        AnchorPairs(pairs.pixels, {})


def test_bad_numbers_and_other_models_are_refused() -> None:
    pool, bank = made_pool(unit(5)), made_bank(unit(2, seed=1), [0, 1], ("a", "b"))
    with pytest.raises(ValueError, match="k=0"):
        retrieve(pool, bank, 0)
    with pytest.raises(ValueError, match="per_class=0"):
        retrieve(pool, bank, per_class=0)
    with pytest.raises(ValueError, match="same=2: must be a cosine"):
        retrieve(pool, bank, same=2)
    with pytest.raises(ValueError, match="the bank has 16 dimensions, the pool 8"):
        retrieve(made_pool(unit(5, 8)), bank)
    with pytest.raises(ValueError, match="no candidate is left"):
        retrieve(pool, bank, exclude=[f"row/{i}" for i in range(5)])
    other = made_pool(unit(5), fingerprint={"backbone": {"weights_hash": "x"}})
    bank.fingerprint["backbone"] = {"weights_hash": "y"}
    with pytest.raises(ValueError, match="the pool is of weights x, the bank of y"):
        retrieve(other, bank)
