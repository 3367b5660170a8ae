"""A table of known text features in the place of a model."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from ogenlib.data import FeatureBank
from ogenlib.evaluate.scores import predict_logits
from ogenlib.hosts import CoOp, TextAdapter, ZeroShot
from ogenlib.runs.saved import load_run
from ogenlib.towers import Backbone, EmbeddingTable, check_fingerprint
from ogenlib.train.loop import fit

NAMES = ["dog", "red_apple", "train", "ice cream"]


def rows(seed: int = 0, width: int = 16) -> torch.Tensor:
    """Lengths of about 400: nothing may depend on them."""
    return 100 * torch.randn(len(NAMES), width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def table() -> EmbeddingTable:
    return EmbeddingTable(NAMES, rows())


def test_lookup_gives_unit_rows_in_the_order_asked(table: EmbeddingTable) -> None:
    expected = F.normalize(rows(), dim=-1)[[2, 0, 2]]
    assert torch.equal(table.encode_text(["train", "dog", "train"]), expected)
    assert torch.equal(table.encode_text("dog", normalize=False), rows()[:1])
    assert table.encode_text([]).shape == (0, 16)


def test_underscores_and_spaces_are_one(table: EmbeddingTable) -> None:
    for name in ("red apple", "red_apple"):
        assert torch.equal(table.encode_text([name]), F.normalize(rows(), dim=-1)[1:2])
    assert torch.equal(table.encode_text(["ice_cream"]), F.normalize(rows(), dim=-1)[3:])


def test_zero_shot_weights_are_the_unit_rows(table: EmbeddingTable) -> None:
    assert torch.equal(ZeroShot(table, NAMES, "{}").class_weights(), F.normalize(rows(), dim=-1))


def test_unknown_names_are_shown_with_the_closest(table: EmbeddingTable) -> None:
    with pytest.raises(ValueError, match=r"has no tower .*'trains' \(did you mean 'train'\?\).*templates='\{\}'"):
        table.encode_text(["dog", "trains"])
    with pytest.raises(ValueError, match=r"'red apples' \(did you mean 'red_apple'"):
        table.encode_text(["red apples"])
    with pytest.raises(ValueError, match=r"'a', 'b', 'c' and 2 more"):
        table.encode_text(list("abcde"))
    with pytest.raises(ValueError, match=r"'a photo of a dog\.'.*templates='\{\}'"):
        ZeroShot(table, NAMES).class_weights()


def test_what_needs_a_tower_is_refused(table: EmbeddingTable) -> None:
    with pytest.raises(ValueError, match=r"no text tower: prompt learners need load_backbone"):
        _ = table.text
    with pytest.raises(ValueError, match="prompt learners need load_backbone"):
        CoOp(table, NAMES)
    with pytest.raises(ValueError, match=r"no image tower.*FeatureBank\.from_features"):
        table.encode_image(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="no image tower"):
        _ = table.preprocess
    with pytest.raises(ValueError, match="fine-tuning needs load_backbone"):
        _ = table.model
    with pytest.raises(AttributeError, match="nonsense"):
        _ = table.nonsense


def test_it_is_frozen_and_looks_like_a_backbone(table: EmbeddingTable, clip: Backbone) -> None:
    assert list(table.parameters()) == [] and not table.train().training
    assert table.fingerprint().keys() == clip.fingerprint().keys()
    assert json.loads(json.dumps(table.fingerprint())) == table.fingerprint()
    assert table.logit_scale.item() == 100 and table.logit_scale.ndim == 0 and table.logit_bias is None
    assert EmbeddingTable(NAMES, rows(), logit_scale=20).logit_scale.item() == 20
    assert (table.embed_dim, table.precision, table.pretrained, table.quick_gelu) == (16, "fp32", None, False)
    assert table.to("cpu").device.type == "cpu"
    assert torch.equal(copy.deepcopy(table).encode_text(NAMES), table.encode_text(NAMES))


def test_the_rows_are_a_copy() -> None:
    given = rows()
    table = EmbeddingTable(NAMES, given)
    given.zero_()
    assert torch.equal(table.encode_text(NAMES, normalize=False), rows())


def test_the_hash_is_of_names_rows_and_scale(table: EmbeddingTable) -> None:
    assert len(table.weights_hash) == 16 and table.weights_hash == EmbeddingTable(NAMES, rows()).weights_hash
    others = [
        EmbeddingTable(NAMES, rows(1)),
        EmbeddingTable([*NAMES[:3], "cat"], rows()),
        EmbeddingTable(NAMES, rows(), logit_scale=50.0),
    ]
    assert len({table.weights_hash, *(o.weights_hash for o in others)}) == 4


@pytest.mark.parametrize(
    ("names", "text", "scale", "message"),
    [
        ([], rows(), 100, "non-empty list of names"),
        ("dog", rows(), 100, "non-empty list of names"),
        (NAMES, rows()[:3], 100, r"4 names need text features of shape \(4, D\), got \(3, 16\)"),
        (NAMES, rows()[0], 100, r"got \(16,\)"),
        (["a_b", "a b", "c", "d"], rows(), 100, r"\['a_b', 'a b'\] are the same"),
        (NAMES, rows() * torch.tensor([[1.0], [0], [1], [1]]), 100, r"\['red_apple'\] are zero or not finite"),
        (NAMES, rows() / torch.tensor([[1.0], [1], [0], [1]]), 100, r"\['train'\] are zero or not finite"),
        (NAMES, rows(), 0, "must be positive, already exponentiated"),
        (NAMES, rows(), float("nan"), "must be positive"),
    ],
)
def test_bad_tables_are_refused(names, text, scale, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingTable(names, text, logit_scale=scale)


def images(table: EmbeddingTable, n: int = 6) -> FeatureBank:
    """Features near the row of the *next* name: zero-shot is wrong, so there is something to learn."""
    labels = torch.arange(len(NAMES)).repeat_interleave(n)
    noise = torch.randn(len(labels), table.embed_dim, generator=torch.Generator().manual_seed(3))
    features = 7 * (F.normalize(rows(), dim=-1).roll(-1, 0)[labels] + 0.05 * noise)
    return FeatureBank.from_features(features, labels, NAMES, table)


def test_a_host_trains_saves_and_opens_on_a_table(table: EmbeddingTable, tmp_path) -> None:
    host, bank = TextAdapter(table, NAMES, "{}", hidden=16), images(table)
    before = (predict_logits(host, bank, NAMES).argmax(1) == bank.labels).float().mean()
    fit(host, bank, epochs=60, warmup_epochs=0, lr=0.05)
    logits = predict_logits(host, bank, NAMES)
    assert before < 0.2 and (logits.argmax(1) == bank.labels).float().mean() > 0.9
    host.save(tmp_path)
    again = load_run(tmp_path, clip=EmbeddingTable(NAMES, rows()))
    assert torch.equal(predict_logits(again, bank, NAMES), logits)
    with pytest.raises(ValueError, match=r"weights_hash.*EmbeddingTable 'table' of the same"):
        load_run(tmp_path, clip=EmbeddingTable(NAMES, rows(1)))


def test_a_bank_of_another_table_is_refused(table: EmbeddingTable) -> None:
    other = EmbeddingTable(NAMES, rows(1))
    with pytest.raises(ValueError, match=f"made with weights {other.weights_hash}"):
        fit(TextAdapter(table, NAMES, "{}"), images(other), epochs=1)


def test_a_table_and_a_model_are_told_apart(table: EmbeddingTable, clip: Backbone) -> None:
    with pytest.raises(ValueError, match=r"load_backbone\('ogen-tiny'"):
        check_fingerprint(clip.fingerprint(), table)
    with pytest.raises(ValueError, match="Open it with the EmbeddingTable 'table'"):
        check_fingerprint(table.fingerprint(), clip)
    check_fingerprint(table.fingerprint(), EmbeddingTable(NAMES, rows()))


def test_a_table_of_a_models_features_gives_its_weights(clip: Backbone) -> None:
    names = ["dog", "bus"]
    table = EmbeddingTable(
        names, clip.encode_text([f"an icon of a {n}." for n in names]), logit_scale=clip.logit_scale.item()
    )
    expected = ZeroShot(clip, names, "an icon of a {}.").class_weights()
    torch.testing.assert_close(ZeroShot(table, names, "{}").class_weights(), expected, atol=1e-6, rtol=0)
