"""Banks hold what the tower gives, say what they are made from, and survive a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from processes import Python
from safetensors import safe_open

from ogenlib.data import Augment, FeatureBank, ImageSet, Item, bank_fingerprint
from ogenlib.data.augment import Augmenter
from ogenlib.utils.tensors import recorded_digest


def test_one_view_is_the_encoded_evaluation_image(make_clip, pet_images):
    clip = make_clip()
    clip.train()
    bank = FeatureBank.extract(clip, pet_images, batch_size=4)
    assert clip.training and clip.net[2].training  # put back
    clip.eval()
    with torch.no_grad():
        pixels = torch.stack([clip.preprocess(pet_images.open(i)) for i in range(len(pet_images))])
        expected = clip.encode_image(pixels)
    assert bank.features.shape == (15, 1, 8) and not bank.features.requires_grad
    torch.testing.assert_close(bank.features[:, 0], expected, rtol=0, atol=1e-6)
    assert torch.equal(bank.labels, pet_images.labels)
    assert bank.keys == pet_images.keys and bank.domains == pet_images.domains
    assert bank.classnames == pet_images.classnames


def test_views_do_not_depend_on_batch_size_or_order(make_clip, pet_images):
    clip = make_clip()
    bank = FeatureBank.extract(clip, pet_images, views=3, seed=5, batch_size=7)
    first = torch.cat(clip.batches).unflatten(0, (15, 3))
    assert bank.features.shape == (15, 3, 8)
    torch.testing.assert_close(bank.features.norm(dim=-1), torch.ones(15, 3))
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    again = make_clip()
    shuffled = FeatureBank.extract(again, pet_images.subset(order), views=3, seed=5, batch_size=2, chunk_views=9)
    assert torch.equal(torch.cat(again.batches).unflatten(0, (15, 3)), first[order])
    torch.testing.assert_close(shuffled.features, bank.features[order], rtol=0, atol=1e-6)
    assert (bank.features[:, 0] - bank.features[:, 1]).abs().amax(-1).min() > 1e-3  # views differ
    other = FeatureBank.extract(make_clip(), pet_images, views=3, seed=6)
    assert (other.features - bank.features).abs().amax() > 1e-2


def test_views_depend_on_the_key(make_clip):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    twins = ImageSet([Item(picture, 0, key="a"), Item(picture, 0, key="b"), Item(picture, 0, key="a")], ["x"])
    one, two, again = FeatureBank.extract(make_clip(), twins, views=4).features
    assert (one - two).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(one, again, rtol=0, atol=1e-6)


def test_extraction_leaves_the_global_generator_alone(make_clip, pet_images):
    torch.manual_seed(3)
    clip, state = make_clip(), None
    state = torch.random.get_rng_state()
    FeatureBank.extract(clip, pet_images, views=2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_augmented_views_come_from_the_frame_that_evaluation_shows():
    cfg = {"size": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "fill_color": 255}
    wide = Image.new("RGB", (32, 16), "black")
    whole = Augment(scale=(1.0, 1.0), flip=0.0)
    padded = Augmenter({**cfg, "resize_mode": "longest"}, whole)(wide, seed=0, key="k", view=0)
    assert padded[:, 0].min() == 1.0 and padded[:, 4].max() == 0.0  # white bars above, black picture
    squashed = Augmenter({**cfg, "resize_mode": "squash"}, whole)(wide, seed=0, key="k", view=0)
    assert padded.shape == squashed.shape == (3, 8, 8) and squashed.max() == 0.0
    normalised = Augmenter({**cfg, "mean": (0.5,) * 3, "std": (0.25,) * 3}, whole)(wide, seed=0, key="k", view=0)
    torch.testing.assert_close(normalised, torch.full((3, 8, 8), -2.0))


def test_augment_flips_and_crops_as_asked():
    cfg = {"size": (8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (32, 1, 3)))
    for flip in (0.0, 1.0):
        view = Augmenter(cfg, Augment(flip=flip))(ramp, seed=0, key="k", view=0)
        assert (view[0, 0, -1] < view[0, 0, 0]) == bool(flip)
    small = Augmenter(cfg, Augment(scale=(0.1, 0.1), flip=0))(ramp, seed=0, key="k", view=0)
    large = Augmenter(cfg, Augment(scale=(0.9, 0.9), flip=0))(ramp, seed=0, key="k", view=0)
    assert small.max() - small.min() < 0.5 < large.max() - large.min()
    for bad in ({"scale": (0.0, 1.0)}, {"scale": (0.9, 0.5)}, {"flip": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Augment(**bad)
    with pytest.raises(ValueError, match="lacks mean, std"):
        Augmenter({"size": 8})


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_real_preprocess_cfg_is_understood(mode):
    """With nothing to crop or flip, a square image gets what open_clip's evaluation transform gives."""
    cfg = {**vars(open_clip.transform.PreprocessCfg(size=24)), "resize_mode": mode}
    evaluate = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**cfg), is_train=False)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    view = Augmenter(cfg, Augment(scale=(1.0, 1.0), flip=0.0))
    for number in range(4):
        torch.testing.assert_close(view(image, seed=0, key="k", view=number), evaluate(image), rtol=0, atol=1e-5)


def test_a_bank_comes_back_from_its_file(make_clip, pet_images, tmp_path):
    bank = FeatureBank.extract(make_clip(), pet_images, views=2, seed=1, dtype=torch.float16)
    assert bank.features.dtype == torch.float16
    bank.save(tmp_path / "b.safetensors")
    back = FeatureBank.load(tmp_path / "b.safetensors", expect=bank.fingerprint)
    assert torch.equal(back.features, bank.features) and back.features.dtype == torch.float16
    assert torch.equal(back.labels, bank.labels)
    for name in ("classnames", "domains", "keys", "fingerprint", "skipped"):
        assert getattr(back, name) == getattr(bank, name)
    back.save(tmp_path / "again.safetensors")
    assert recorded_digest(tmp_path / "again.safetensors") == recorded_digest(tmp_path / "b.safetensors") is not None
    exact = FeatureBank.extract(make_clip(), pet_images, views=2, seed=1)
    torch.testing.assert_close(back.features.float(), exact.features, rtol=0, atol=1e-3)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is mapped")
def test_loading_maps_the_file(make_clip, pet_images, tmp_path):
    path = tmp_path / "mapped.safetensors"
    FeatureBank.extract(make_clip(), pet_images).save(path)
    bank = FeatureBank.load(path)
    address = bank.features.data_ptr()
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    assert any(low <= address < high for low, high in ranges)


def test_the_fingerprint_says_what_a_bank_is_made_from(make_clip, pet_images):
    base = bank_fingerprint(make_clip(), pet_images)
    assert base == FeatureBank.extract(make_clip(), pet_images).fingerprint
    assert {"backbone", "data", "views", "augment", "seed"} <= set(base)
    assert bank_fingerprint(make_clip(), pet_images, seed=9) == base  # a clean view draws nothing
    two = bank_fingerprint(make_clip(), pet_images, 2)
    others = [
        bank_fingerprint(make_clip(weights=1), pet_images),
        bank_fingerprint(make_clip(), pet_images[1:]),
        bank_fingerprint(make_clip(), pet_images, dtype=torch.float16),
        two,
        bank_fingerprint(make_clip(), pet_images, 2, seed=9),
        bank_fingerprint(make_clip(), pet_images, 2, augment=Augment(flip=0)),
    ]
    assert len({json.dumps(f, sort_keys=True) for f in [base, *others]}) == 7


def test_a_stale_bank_is_refused(make_clip, pet_images, tmp_path):
    path = tmp_path / "b.safetensors"
    clip = make_clip()
    FeatureBank.extract(clip, pet_images, views=2, path=path)
    with pytest.raises(ValueError, match=r"b\.safetensors.*backbone\.weights_hash is .*, expected .*overwrite=True"):
        FeatureBank.load(path, expect={"backbone": make_clip(weights=1).fingerprint()})
    with pytest.raises(ValueError, match="seed is 0, expected 1"):
        FeatureBank.extract(clip, pet_images, views=2, seed=1, path=path)
    pet_images[0].image.write_bytes(pet_images[1].image.read_bytes())
    with pytest.raises(ValueError, match=r"data\.content is"):
        FeatureBank.extract(clip, pet_images, views=2, path=path)
    assert len(FeatureBank.extract(clip, pet_images, views=2, path=path, overwrite=True)) == 15
    part = FeatureBank.load(path).of_domain("even")
    part.save(tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"data\.selected"):
        FeatureBank.load(tmp_path / "part.safetensors", expect=bank_fingerprint(clip, pet_images, 2))


def test_a_bank_that_is_there_is_not_made_again(make_clip, pet_images, tmp_path):
    path = tmp_path / "sub" / "b.safetensors"
    made = FeatureBank.extract(make_clip(), pet_images, path=path)
    assert [p.name for p in path.parent.iterdir() if p.name != ".locks"] == ["b.safetensors"]
    clip = make_clip()
    again = FeatureBank.extract(clip, pet_images, path=path)
    assert clip.batches == [] and torch.equal(again.features, made.features)


def test_files_that_are_no_banks_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file, which should be a feature bank"):
        FeatureBank.load(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="cannot be read as a feature bank"):
        FeatureBank.load(tmp_path / "b.safetensors")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data_world import FakeClip, folder_images
from ogenlib.data import FeatureBank
clip = FakeClip(kill_at=int(sys.argv[4]))
data = folder_images(Path(sys.argv[2]))
FeatureBank.extract(clip, data, views=2, batch_size=2, chunk_views=8, path=sys.argv[3])
"""


@pytest.mark.slow
def test_a_killed_extraction_goes_on_where_it_stopped(make_clip, pet_images, pets, tmp_path):
    """15 images in 2 views are 15 batches of 2, in parts of 4 images: 4 batches each."""
    whole, path = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    clip = make_clip()
    FeatureBank.extract(clip, pet_images, views=2, batch_size=2, chunk_views=8, path=whole)
    assert len(clip.batches) == 15
    killed = Python("-c", KILLED, str(Path(__file__).parent), str(pets), str(path), "10")
    assert killed.wait() == -signal.SIGKILL, killed.said()
    assert not path.exists()
    finished = sorted(p.name for p in (tmp_path / "killed.safetensors.partial").glob("from-*"))
    assert len(finished) == 2  # ten batches: two parts whole, the third half done

    resumed = make_clip()
    bank = FeatureBank.extract(resumed, pet_images, views=2, batch_size=2, chunk_views=999, path=path)
    assert len(resumed.batches) == 15 - 8
    assert torch.equal(bank.features, FeatureBank.load(whole).features)
    assert recorded_digest(path) == recorded_digest(whole) is not None
    assert not (tmp_path / "killed.safetensors.partial").exists()


def test_parts_of_other_settings_are_not_mixed_in(make_clip, pet_images, tmp_path):
    path = tmp_path / "b.safetensors"
    broken = pet_images[9].image
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    with pytest.raises(ValueError, match=str(broken)):
        FeatureBank.extract(make_clip(), pet_images, chunk_views=4, path=path)
    assert not path.exists() and (tmp_path / "b.safetensors.partial").exists()
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.safetensors\.partial: .*data\.content"):
        FeatureBank.extract(make_clip(), pet_images, chunk_views=4, path=path)
    clip = make_clip()
    bank = FeatureBank.extract(clip, pet_images, chunk_views=4, path=path, overwrite=True)
    assert len(torch.cat(clip.batches)) == len(bank) == 15


def test_bad_images_are_named_or_skipped_and_counted(make_clip, pet_images, tmp_path):
    path = tmp_path / "b.safetensors"
    whole = FeatureBank.extract(make_clip(), pet_images)
    for i in (3, 4, 5, 11):
        pet_images[i].image.write_bytes(b"" if i != 11 else pet_images[i].image.read_bytes()[:150])
    with pytest.raises(ValueError, match=rf"{pet_images[3].image}: cannot be read"):
        FeatureBank.extract(make_clip(), pet_images)
    bank = FeatureBank.extract(make_clip(), pet_images, skip_bad=True, chunk_views=3, path=path)
    good = [i for i in range(15) if i not in (3, 4, 5, 11)]
    torch.testing.assert_close(bank.features, whole.features[good], rtol=0, atol=1e-6)
    assert bank.keys == [pet_images[i].key for i in good]
    assert [s["file"] for s in bank.skipped] == [str(pet_images[i].image) for i in (3, 4, 5, 11)]
    assert all(s["reason"] for s in bank.skipped)
    assert len(FeatureBank.extract(make_clip(), pet_images, skip_bad=True, path=path).skipped) == 4
    with pytest.raises(ValueError, match="without 4 bad images"):
        FeatureBank.extract(make_clip(), pet_images, path=path)
    for item in pet_images:
        item.image.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 15 images"):
        FeatureBank.extract(make_clip(), pet_images, skip_bad=True)


def test_features_that_are_not_finite_are_refused(make_clip, pet_images):
    clip = make_clip()
    with torch.no_grad():
        clip.net[1].bias.fill_(float("inf"))
    with pytest.raises(ValueError, match=rf"{pet_images[0].image}: .*not finite.*fp32"):
        FeatureBank.extract(clip, pet_images)


def test_settings_are_checked(make_clip, pet_images):
    for bad in ({"views": 0}, {"batch_size": 0}, {"chunk_views": 0}, {"dtype": torch.int8}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            FeatureBank.extract(make_clip(), pet_images, **bad)
    with pytest.raises(ValueError, match="empty"):
        FeatureBank.extract(make_clip(), ImageSet([], ["a"]))


@pytest.fixture
def toy() -> FeatureBank:
    features = torch.nn.functional.normalize(torch.arange(48.0).sin().reshape(6, 4, 2), dim=-1)
    return FeatureBank(
        features=features,
        labels=torch.tensor([0, 1, 2, 0, 1, 2]),
        classnames=("cat", "dog", "fox"),
        domains=["x", "x", "x", "y", "y", "y"],
        keys=list("abcdef"),
        fingerprint={"data": {"hash": "0"}},
    )


def test_select_relabels(toy):
    chosen = toy.select(["fox", "cat"])
    assert chosen.classnames == ("fox", "cat") and chosen.labels.tolist() == [1, 0, 1, 0]
    assert chosen.keys == ["a", "c", "d", "f"] and chosen.domains == ["x", "x", "y", "y"]
    assert torch.equal(chosen.features, toy.features[[0, 2, 3, 5]])
    assert chosen.fingerprint != toy.fingerprint
    with pytest.raises(ValueError, match=r"this bank has no class 'cart'; did you mean 'cat'\?"):
        toy.select(["cart"])


def test_of_domain_and_subset(toy):
    assert toy.of_domain("y").keys == ["d", "e", "f"]
    assert toy.subset([5, 0]).keys == ["f", "a"] and toy.subset(toy.labels == 1).keys == ["b", "e"]
    with pytest.raises(ValueError, match="'z'; the domains are 'x', 'y'"):
        toy.of_domain("z")


def test_view_draws_one_view_a_row(toy):
    indices = torch.tensor([0, 0, 3, 5] * 50)
    drawn = toy.view(indices, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 2)
    same = (drawn[:, None] == toy.features[indices]).all(-1)
    assert same.any(1).all() and set(same.int().argmax(1).tolist()) == {0, 1, 2, 3}
    assert torch.equal(drawn, toy.view(indices, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, toy.view(indices, torch.Generator().manual_seed(1)))


def test_view_is_float32_whatever_the_storage(toy):
    half = FeatureBank(toy.features.half(), toy.labels, toy.classnames, toy.domains, toy.keys, {})
    assert half.view(torch.tensor([1])).dtype == torch.float32


def test_a_bank_of_unequal_parts_is_refused(toy):
    with pytest.raises(ValueError, match=r"features of shape \(6, V, D\)"):
        FeatureBank(toy.features[:5], toy.labels, toy.classnames, toy.domains, toy.keys, {})


def test_domains_and_odd_keys_survive_the_file(toy, tmp_path):
    odd = FeatureBank(toy.features, toy.labels, toy.classnames, toy.domains, ["é\n", *"bcdef"], {})
    odd.save(tmp_path / "b.safetensors")
    assert FeatureBank.load(tmp_path / "b.safetensors").keys == odd.keys
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert set(json.loads(file.metadata()["bank"])) >= {"format", "fingerprint", "classnames"}


def test_images_from_functions_are_encoded(make_clip):
    items = [Item(lambda c=c: Image.new("RGB", (20, 20), c), 0, key=c) for c in ("red", "blue")]
    bank = FeatureBank.extract(make_clip(), ImageSet(items, ["colour"]), views=2)
    assert bank.keys == ["red", "blue"] and not torch.equal(bank.features[0], bank.features[1])
