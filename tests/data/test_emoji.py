"""The embedded emoji data: what the bundle holds, and how the datasets are split."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from ogenlib.data import few_shot, list_datasets, load_dataset
from ogenlib.data.emoji import PRETRAINING_SETS, UNSEEN_SETS, bundle_path, concepts, icon_sets, load_emoji


def test_the_bundle_is_complete_and_untouched() -> None:
    assert set(icon_sets()) == {*PRETRAINING_SETS, *UNSEEN_SETS} and len(icon_sets()) == 12
    assert len(concepts()) >= 1640
    images = 0
    for name, row in icon_sets().items():
        path = bundle_path() / f"{name}.zip"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"], name
        with zipfile.ZipFile(path) as archive:
            assert len(archive.namelist()) == row["images"]
        images += row["images"]
    assert images >= 14_700
    assert sum(p.stat().st_size for p in bundle_path().iterdir()) <= 16_000_000


def test_every_set_is_attributed_and_openly_licensed() -> None:
    text = (bundle_path() / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for name, row in icon_sets().items():
        assert row["licence"] in ("Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0")
        assert f"| {name} |" in text and row["licence"] in text and row["author"] in text


def test_categories_split_concepts_and_not_drawings() -> None:
    data = load_dataset("emoji-categories")
    assert len(data.classnames) == 51 and list(data.classnames) == sorted(data.classnames)
    trained = {item.key.split("/")[1] for item in data.train}
    tested = {item.key.split("/")[1] for item in data.test}
    assert trained and tested and not trained & tested
    assert set(data.train.domains) == {"noto"} and set(data.test.domains) == set(UNSEEN_SETS)
    # Every domain is tested on the same concepts.
    by_domain = {d: {i.key.split("/")[1] for i in data.test if i.domain == d} for d in UNSEEN_SETS}
    assert all(s == tested for s in by_domain.values())
    counts = data.train.labels.bincount(minlength=51)
    test_counts = data.test.of_domain("noto").labels.bincount(minlength=51)
    assert counts.max() <= 16 and counts.min() >= 4
    assert all(a <= b or a == 16 for a, b in zip(counts.tolist(), test_counts.tolist(), strict=True))


def test_the_splits_are_fixed() -> None:
    # Published results name these hashes: a change here is a new version of the benchmark.
    assert load_dataset("emoji-categories").hash() == CATEGORIES_HASH
    assert load_dataset("emoji-concepts/food-drink").hash() == FOOD_HASH


CATEGORIES_HASH = "cf27a009499c92fc"
FOOD_HASH = "31ed9a7a62e5547b"


@pytest.mark.parametrize("name", list_datasets()[1:])
def test_concepts_split_drawings_and_not_concepts(name: str) -> None:
    data = load_dataset(name)
    assert len(data.classnames) >= 60
    assert not set(data.train.domains) & set(data.test.domains)
    assert set(data.train.labels.tolist()) == set(data.test.labels.tolist()) == set(range(len(data.classnames)))
    assert len(set(data.train.keys)) == len(data.train) == 3 * len(data.classnames)


def test_there_are_eight_groups() -> None:
    assert len(list_datasets()) == 9 and list_datasets()[0] == "emoji-categories"


def test_images_open_as_64_pixel_rgb_on_white() -> None:
    data = load_dataset("emoji-categories", test_domains=["noto", "openmoji"])
    for images in (data.train, data.test.of_domain("openmoji")):
        picture = images.open(0)
        assert picture.size == (64, 64) and picture.mode == "RGB"
        corners = [picture.getpixel(p) for p in ((0, 0), (63, 0), (0, 63))]
        assert any(min(c) > 240 for c in corners)


def test_domains_can_be_chosen() -> None:
    data = load_dataset("emoji-categories", train_domains=["openmoji", "noto"], test_domains=["emojione"])
    assert set(data.train.domains) == {"openmoji", "noto"} and set(data.test.domains) == {"emojione"}
    assert len(data.train) == 2 * len(load_dataset("emoji-categories").train)


def test_wrong_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"\['nota'\] must name icon sets"):
        load_dataset("emoji-categories", train_domains=["nota"])
    with pytest.raises(ValueError, match="would be trained and tested on"):
        load_dataset("emoji-concepts/food-drink", train_domains=["noto"], test_domains=["noto", "openmoji"])
    with pytest.raises(ValueError, match="emoji-categories"):
        load_emoji("emoji-category")


def test_sixteen_shots_take_every_training_concept() -> None:
    train = load_dataset("emoji-categories").train
    assert sorted(few_shot(train, 16, 1).keys) == sorted(train.keys)
    four = few_shot(train, 4, 1)
    assert four.labels.bincount().tolist() == [4] * 51
    assert few_shot(train, 4, 1).keys == four.keys != few_shot(train, 4, 2).keys
