"""Detectors of a trained host: what they read of it, two towers, and hosts that some of them cannot take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_ood.detector as theirs
import torch
import torch.nn.functional as F
from pixel_world import KNOWN, NEW, PixelShift, pictures
from use_world import Cached, Conditional

from ogenlib.data import FeatureBank, PixelBank
from ogenlib.detect import OGENDetector
from ogenlib.detect.of_host import DETECTORS, OwnTower, detector_of, encoder_of, scorers, seen, trained_half
from ogenlib.hosts import ZeroShot
from ogenlib.ogen.wrapper import OGEN

NAMES = ("dog", "red apple", "train", "hammer")
BARE: dict[str, Any] = {"generator": None, "teacher": None}


def two_towers(clip, shift: float) -> OGEN:
    host = PixelShift(clip, KNOWN)
    with torch.no_grad():
        host.shift.fill_(shift)
    return OGEN(host, known=KNOWN, unknown=NEW, **BARE)


def test_scores_are_those_of_the_detectors_themselves(clip, toy_bank: FeatureBank) -> None:
    host = ZeroShot(clip, NAMES)
    images = seen(host, toy_bank)
    z, w = toy_bank.features[:, 0], host.class_weights()
    torch.testing.assert_close(images.logits, clip.logit_scale * z @ w.T)
    found, missing = scorers(host, (images, toy_bank.labels))
    assert tuple(found) == tuple(DETECTORS) and missing == {}
    torch.testing.assert_close(found["mcm"](images), theirs.MCM(None, w).predict_features(z))
    torch.testing.assert_close(found["energy"](images), theirs.EnergyBased(None).predict_logits(images.logits))
    torch.testing.assert_close(found["max_logit"](images), -images.logits.amax(dim=1))
    ours = OGENDetector(None, class_embeddings=w)
    torch.testing.assert_close(found["ogen"](images), ours.predict_features(z))
    ours.fit_features(z, toy_bank.labels)
    torch.testing.assert_close(found["ogen_images"](images), ours.predict_features(z))
    assert "ogen_images" not in scorers(host, None)[0]


def test_what_a_host_adds_to_its_logits_is_scored(clip, toy_bank: FeatureBank) -> None:
    host = Cached(clip, NAMES)
    images = seen(host, toy_bank)
    plain = seen(ZeroShot(clip, NAMES), toy_bank)
    energy = scorers(host, None)[0]["energy"]
    assert not torch.allclose(energy(images), energy(plain))


def test_weights_that_depend_on_the_image_leave_logits(clip, toy_bank: FeatureBank) -> None:
    host = Conditional(clip, NAMES)
    images = seen(host, toy_bank)
    found, missing = scorers(host, (images, toy_bank.labels))
    assert tuple(found) == ("mcm", "max_logit", "energy")
    assert missing.keys() == {"ogen", "ogen_images"} and "depend on the image" in missing["ogen"]
    assert torch.isfinite(found["mcm"](images)).all()


def test_two_towers_detect_with_the_trained_one(clip) -> None:
    bank = PixelBank.load(clip, pictures(2, KNOWN))
    host = two_towers(clip, 0.7)
    assert host.class_weights().shape[1] == 2 * clip.embed_dim
    images, alone = seen(host, bank), seen(host.host, bank)
    torch.testing.assert_close(trained_half(images.z, host), alone.z)
    both = [scorers(h, (i, bank.labels))[0] for h, i in ((host, images), (host.host, alone))]
    for name in DETECTORS:
        torch.testing.assert_close(both[0][name](images), both[1][name](alone))
    pixels = bank.pixels(torch.arange(len(bank)), torch.zeros(len(bank), dtype=torch.long))
    encoder = encoder_of(host)
    assert isinstance(encoder, OwnTower)
    torch.testing.assert_close(encoder(pixels), alone.z)
    torch.testing.assert_close(encoder_of(host.host)(pixels), alone.z)


def test_two_towers_with_other_names_weigh_both_halves(clip) -> None:
    bank = PixelBank.load(clip, pictures(2, KNOWN))
    host = two_towers(clip, 0.0)  # both towers see the same, so one tower can tell what is right
    images = seen(host, bank)
    detector = detector_of(host, NEW)
    assert detector.class_embeddings.shape == (len(KNOWN), 2 * clip.embed_dim)
    assert detector.temperature == pytest.approx(0.01 / math.sqrt(2))
    single = OGENDetector(None, None, host.anchor(KNOWN), host.anchor(NEW))
    z = F.normalize(images.z, dim=-1)
    torch.testing.assert_close(detector.evidence(z) * math.sqrt(2), single.evidence(trained_half(images.z, host)))
    assert torch.isfinite(detector.predict_features(images.z)).all()
    pixels = bank.pixels(torch.arange(len(bank)), torch.zeros(len(bank), dtype=torch.long))
    torch.testing.assert_close(encoder_of(host, NEW)(pixels), z)


def test_a_known_name_is_not_unknown(clip) -> None:
    with pytest.raises(ValueError, match="which the run knows"):
        detector_of(ZeroShot(clip, NAMES), ["dog"])
