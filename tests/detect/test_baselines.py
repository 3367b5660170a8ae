"""NegLabel and GL-MCM against their formulas, the encoders, and vocabularies."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_ood.detector import MCM

from ogenlib.detect import (
    GLMCM,
    ImageEncoder,
    NegLabel,
    PatchEncoder,
    mine_negatives,
    read_vocabulary,
    vocabulary,
    wordnet_nouns,
)
from ogenlib.hosts import ZeroShot
from ogenlib.towers import Backbone, load_backbone


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return load_backbone("ogen-tiny")


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_neg_label_is_the_share_of_the_softmax() -> None:
    z, w, u = rows(6, 8), rows(3, 8, seed=1), rows(5, 8, seed=2)
    share = (torch.cat([w, u]) @ z.T / 0.1).softmax(dim=0)[:3].sum(dim=0)
    found = NegLabel(None, w, 7 * u, temperature=0.1, groups=1).predict_features(3 * z)
    torch.testing.assert_close(found, -share)


def test_neg_label_averages_its_groups() -> None:
    z, w, u = rows(6, 8), rows(3, 8, seed=1), rows(5, 8, seed=2)
    detector = NegLabel(None, w, u, temperature=0.1, groups=2, seed=4)
    parts = detector.negative_embeddings.tensor_split(2)
    shares = [(torch.cat([w, part]) @ z.T / 0.1).softmax(dim=0)[:3].sum(dim=0) for part in parts]
    torch.testing.assert_close(detector.predict_features(z), -torch.stack(shares).mean(dim=0))
    alone = [(torch.cat([w, part]) @ z.T / 0.1).softmax(dim=0)[:3].sum(dim=0) for part in u.split(1)]
    detector.set_hyperparameters(groups=100)
    torch.testing.assert_close(detector.predict_features(z), -torch.stack(alone).mean(dim=0))
    with pytest.raises(ValueError, match="groups=0"):
        detector.set_hyperparameters(groups=0).predict_features(z)


def test_negatives_are_the_least_similar_names() -> None:
    known = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    near, far = torch.tensor([[1.0, 0.1, 0.0]]), torch.tensor([[0.1, 0.1, 1.0], [0.0, 0.0, 1.0]])
    assert mine_negatives(known, torch.cat([near, far]), keep=2).tolist() == [2, 1]
    assert mine_negatives(known, torch.cat([near, far]), keep=0.34).tolist() == [2]
    for keep in (0, 4, 0.01, 1.5):
        with pytest.raises(ValueError, match="keep="):
            mine_negatives(known, far, keep=keep)


def test_neg_label_from_names(clip: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("hammer\nDog\n\nsaw\nhammer\nchurch_bell\n")
    detector = NegLabel.from_names(clip, ["dog", "cat"], path, keep=2)
    assert detector.negative_embeddings.shape == (2, clip.embed_dim)
    pixels = clip.preprocess(Image.new("RGB", (64, 64), "red"))[None]
    assert detector.predict(pixels).shape == (1,)


def test_vocabularies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_vocabulary(["church_bell", "Saw", "saw", " ", "dog"], known=["Dog"]) == ["church bell", "Saw"]
    with pytest.raises(ValueError, match="no name besides"):
        read_vocabulary(["dog"], known=["dog"])
    with pytest.raises(FileNotFoundError, match="no vocabulary"):
        read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="is no file"):
        read_vocabulary(tmp_path)
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is no UTF-8 text"):
        read_vocabulary(tmp_path / "latin.txt")
    monkeypatch.setattr(vocabulary, "MAX_BYTES", 4)
    with pytest.raises(ValueError, match=r"latin\.txt has 5 bytes, and a vocabulary 4 at most"):
        read_vocabulary(tmp_path / "latin.txt")
    monkeypatch.setitem(sys.modules, "wn", None)
    with pytest.raises(ImportError, match="ogenlib\\[wordnet\\]"):
        wordnet_nouns()
    fake = types.SimpleNamespace(Error=LookupError)

    class Wordnet:
        def __init__(self, lexicon: str) -> None:
            if lexicon != "oewn:2024":
                raise LookupError("no such lexicon")

        def words(self, pos: str) -> list:
            return [types.SimpleNamespace(lemma=lambda w=w: w) for w in (["dog", "ant", "dog"] if pos == "n" else [])]

    monkeypatch.setitem(sys.modules, "wn", types.SimpleNamespace(Wordnet=Wordnet, Error=fake.Error))
    assert wordnet_nouns() == ["ant", "dog"]
    with pytest.raises(ValueError, match="python -m wn download"):
        wordnet_nouns("omw:1")


def test_gl_mcm_without_patches_is_mcm_and_adds_the_best_patch() -> None:
    z, w = rows(6, 5, 8), rows(3, 8, seed=1)
    plain = MCM(None, w).predict_features(z[:, 0])
    torch.testing.assert_close(GLMCM(None, w, local=0.0).predict_features(z), plain)
    best = (z[:, 1:] @ w.T).softmax(dim=-1).amax(dim=(1, 2))
    torch.testing.assert_close(GLMCM(None, w, local=0.5).predict_features(5 * z), plain - 0.5 * best)
    flat = GLMCM(None, w).predict_features(z.flatten(1))
    torch.testing.assert_close(flat, GLMCM(None, w).predict_features(z))
    with pytest.raises(ValueError, match="PatchEncoder"):
        GLMCM(None, w).predict_features(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="temperature=0"):
        GLMCM(None, w, temperature=0)


def test_patches_lie_where_names_do(clip: Backbone) -> None:
    pixels = torch.stack([clip.preprocess(Image.new("RGB", (64, 64), c)) for c in ("red", "blue")])
    found = PatchEncoder(clip)(pixels)
    torch.testing.assert_close(found[:, 0], clip.encode_image(pixels))
    assert found.shape[::2] == (2, clip.embed_dim)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:2]))
    assert GLMCM(PatchEncoder(clip), clip.encode_text(["dog", "cat"])).predict(pixels).shape == (2,)


def test_the_encoder_of_a_host_and_of_its_backbone(clip: Backbone) -> None:
    pixels = clip.preprocess(Image.new("RGB", (64, 64), "red"))[None]
    host = ZeroShot(clip, ["dog", "cat"])
    plain, hosted = ImageEncoder(clip), ImageEncoder(host)
    torch.testing.assert_close(plain(pixels), hosted(pixels))
    assert not plain.train().training
    assert len(plain.fingerprint()) == 16
    assert plain.fingerprint() == ImageEncoder(clip).fingerprint() != hosted.fingerprint()
    with pytest.raises(TypeError, match="neither a backbone nor a host"):
        ImageEncoder(torch.nn.Identity())  # type: ignore[arg-type]
