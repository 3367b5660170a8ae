"""Banks of pixels hold the views of a feature bank, to the last bit, wherever they are kept."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from ogenlib.data import Augment, FeatureBank, PixelBank
from ogenlib.data import pixels as pixels_module
from ogenlib.data.augment import Augmenter, view_seed
from ogenlib.towers import EmbeddingTable


def every(bank: PixelBank) -> torch.Tensor:
    """(N, V, 3, H, W)."""
    rows = torch.arange(len(bank)).repeat_interleave(bank.views)
    return bank.pixels(rows, torch.arange(bank.views).repeat(len(bank))).unflatten(0, (len(bank), bank.views))


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_frozen_is_what_extract_makes(clip, pet_images, views: int, cache: str) -> None:
    images = pet_images.subset([0, 1, 6, 9, 10, 11])
    expected = FeatureBank.extract(clip, images, views, seed=3)
    bank = PixelBank.load(clip, images, views, seed=3, cache=cache)
    found = bank.frozen(clip)
    assert torch.equal(found.features, expected.features) and torch.equal(found.labels, expected.labels)
    for name in ("classnames", "domains", "keys", "fingerprint", "skipped"):
        assert getattr(found, name) == getattr(expected, name), name
    names = ("red fox", "cat")
    part, whole = bank.select(names).of_domain("odd").frozen(clip), expected.select(names).of_domain("odd")
    assert part.fingerprint == whole.fingerprint and part.keys == whole.keys
    torch.testing.assert_close(part.features, whole.features, atol=1e-6, rtol=0)


@pytest.mark.parametrize("views", [1, 3])
def test_the_tower_gets_the_same_pixels_to_the_last_bit(make_clip, pet_images, views: int) -> None:
    plain, stored, decoded = make_clip(), make_clip(), make_clip()
    FeatureBank.extract(plain, pet_images, views, seed=5, augment=Augment(flip=0.9))
    for clip, cache in ((stored, "memory"), (decoded, "none")):
        PixelBank.load(clip, pet_images, views, seed=5, augment=Augment(flip=0.9), cache=cache).frozen(clip)
        assert torch.equal(torch.cat(clip.batches), torch.cat(plain.batches))


def test_views_are_drawn_as_a_feature_bank_draws_them(make_clip, pet_images) -> None:
    bank = PixelBank.load(make_clip(), pet_images, views=5, cache="memory")
    rows = torch.tensor([3, 0, 14, 3])
    features = bank.frozen(make_clip().eval())
    drawn = bank.view(rows, torch.Generator().manual_seed(2))
    views = torch.randint(5, (4,), generator=torch.Generator().manual_seed(2))
    assert drawn.shape == (4, 3, 12, 12) and drawn.dtype == torch.float32
    assert torch.equal(drawn, every(bank)[rows, views])
    picked = features.view(rows, torch.Generator().manual_seed(2))
    torch.testing.assert_close(make_clip().eval().encode_image(drawn), picked, atol=1e-6, rtol=0)


def test_threads_and_storage_change_nothing(make_clip, pet_images) -> None:
    clip, state = make_clip(), torch.random.get_rng_state()
    banks = [
        PixelBank.load(clip, pet_images, views=6, seed=1, cache=cache, workers=workers)
        for cache in ("memory", "none")
        for workers in (0, 4)
    ]
    first = every(banks[0])
    assert all(torch.equal(every(bank), first) for bank in banks[1:])
    assert (first[:, 0] != first[:, 1]).any() and torch.equal(torch.random.get_rng_state(), state)
    assert repr(banks[0]) == "PixelBank(15 images, 6 views, in memory, 3 classes)"
    assert "decoded when used" in repr(banks[2])


def test_augmented_views_are_torchvisions() -> None:
    """What is drawn apart from what is done with it equals torchvision's own sequence of transforms."""
    cfg = {"size": (16, 16), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    ramp = torch.arange(3 * 20 * 30, dtype=torch.uint8).view(3, 20, 30)
    image = v2.functional.to_pil_image(ramp)
    whole = v2.Compose(
        [
            v2.RandomResizedCrop((16, 16), scale=(0.2, 1), interpolation=InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(cfg["mean"], cfg["std"]),
        ]
    )
    augmenter = Augmenter(cfg, Augment(scale=(0.2, 1.0)))
    for view in range(8):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(view_seed(7, "k", view))
            expected = whole(image)
        assert torch.equal(augmenter(image, seed=7, key="k", view=view), expected)


def test_auto_keeps_what_fits(make_clip, pet_images, monkeypatch) -> None:
    needed = 15 * 2 * 3 * 12 * 12
    for limit, shown in ((needed, "in memory"), (needed - 1, "decoded when used")):
        monkeypatch.setattr(pixels_module, "MEMORY_LIMIT", limit)
        assert shown in repr(PixelBank.load(make_clip(), pet_images, views=2))


def test_selecting_shares_what_is_stored(make_clip, pet_images) -> None:
    bank = PixelBank.load(make_clip(), pet_images, views=2)
    part = bank.select(["dog", "cat"])
    assert part.source is bank.source and len(part) == 9
    assert part.labels.tolist() == [1] * 5 + [0] * 4 and part.keys == bank.keys[:9]
    assert torch.equal(every(part), every(bank)[:9])
    assert torch.equal(every(bank.subset([14, 2])), every(bank)[[14, 2]])
    assert set(bank.of_domain("odd").domains) == {"odd"}
    assert part.fingerprint != bank.fingerprint
    with pytest.raises(ValueError, match="no class 'wolf'"):
        bank.select(["wolf"])


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_bad_images_are_counted_or_named(make_clip, pet_images, cache: str) -> None:
    bad = pet_images[4].image
    bad.write_bytes(b"no picture")
    expected = FeatureBank.extract(make_clip(), pet_images, views=2, skip_bad=True)
    for workers in (0, 2):
        bank = PixelBank.load(make_clip(), pet_images, views=2, skip_bad=True, cache=cache, workers=workers)
        assert bank.skipped == expected.skipped and bank.keys == expected.keys and len(bank) == 14
        torch.testing.assert_close(bank.frozen(make_clip()).features, expected.features, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"04\.png.*skip_bad=True"):
        bank = PixelBank.load(make_clip(), pet_images, cache=cache)
        bank.view(torch.tensor([4]))


def test_bad_requests_are_named(make_clip, pet_images) -> None:
    clip = make_clip()
    for wrong in ({"cache": "disk"}, {"workers": -1}, {"views": 0}):
        (key,) = wrong
        with pytest.raises(ValueError, match=key):
            PixelBank.load(clip, pet_images, **wrong)
    with pytest.raises(ValueError, match="empty"):
        PixelBank.load(clip, pet_images.subset([]))
    with pytest.raises(ValueError, match="no image tower"):
        PixelBank.load(EmbeddingTable(["cat"], torch.ones(1, 4)), pet_images)
    other = make_clip(cfg={**clip.preprocess_cfg, "mean": (0.0, 0.0, 0.0)})
    with pytest.raises(ValueError, match=r"pixels were made for.*PixelBank\.load"):
        PixelBank.load(clip, pet_images).frozen(other)


def test_pixels_that_bytes_cannot_hold_are_refused_and_decoded(make_clip, pet_images) -> None:
    clip = make_clip()
    exact = clip.preprocess
    del clip.preprocess  # a module, which only a module may replace
    clip.preprocess = lambda image: exact(image) + torch.linspace(0, 1e-3, 12)
    with pytest.raises(ValueError, match="cache='none'"):
        PixelBank.load(clip, pet_images)
    bank = PixelBank.load(clip, pet_images, cache="none")
    assert torch.equal(bank.view(torch.tensor([0]))[0], clip.preprocess(Image.open(pet_images[0].image)))
