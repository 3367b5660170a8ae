"""OGEN stopped and continued, saved and loaded, and in two processes."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from ogen_world import KNOWN, SMALL, UNKNOWN, PerImage, adapter, make_bank, make_table, same, seeded, train
from ogen_world import values as tensors_of
from processes import BESIDE, two_of
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import ogenlib as og
from ogenlib import OGEN
from ogenlib.hosts import CoOp, Host, TaskRes
from ogenlib.towers import EmbeddingTable

# --- stopped and continued --------------------------------------------------------------------------------


class Stop(Exception):
    pass


RECIPES: dict[str, dict[str, Any]] = {
    "ogenlib": {"preset": "ogenlib"},
    "paper": {"preset": "paper", "dropout": 0.5},
    "released-code": {"preset": "released-code", "dropout": 0.5},
    "almt-joint": {"teacher": "almt", "m_min": 1, "m_max": 3, "generator": "joint", "joint": True, "dropout": 0.5,
                   "warmup": 0.2, "keep_teacher": True},
    "ema": {"teacher": "ema"},
    "mean-l2": {"teacher": "mean", "teacher_loss": "l2", "synthesized_kl": 0.5},
}  # fmt: skip


def state(model: OGEN) -> dict[str, Tensor]:
    """Every tensor a run ends with: the host's, the generator's, the teacher's."""
    found = {f"host/{k}": v for k, v in tensors_of(model).items()}
    found |= {f"generator/{k}": v for k, v in model.rows.generator.state_dict().items()}
    if model.teacher is not None:
        found |= {f"teacher/{k}": v for k, v in model.teacher.state_dict().items() if isinstance(v, Tensor)}
    return found


def records(history: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history.epochs]


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_and_continued_is_bit_identical(recipe: str, stop: int, tmp_path) -> None:
    table = make_table()
    bank = make_bank(table)

    def run(out: Path, measure: Any = None, noise: int = 0) -> tuple[OGEN, Any]:
        model = OGEN(adapter(table), unknown=UNKNOWN, **{**SMALL, **RECIPES[recipe]})
        with torch.random.fork_rng():
            torch.manual_seed(noise)  # another process finds torch's global state elsewhere
            return model, train(model, bank, measure, epochs=6, out=out)

    def raising(_: Host, epoch: int) -> dict[str, float]:
        if epoch == stop + 1:  # after the step, before its checkpoint: the epoch is lost
            raise Stop
        return {}

    whole, history = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", raising, 1)
    again, continued = run(tmp_path / "parts", None, 2)
    assert same(state(whole), state(again)) and records(history) == records(continued)
    assert not same(tensors_of(whole), tensors_of(adapter(table)))
    finished, _ = run(tmp_path / "parts", None, 3)  # nothing left to do
    assert same(tensors_of(whole), tensors_of(finished))


def test_continued_with_weights_of_every_image(tmp_path) -> None:
    table = make_table()

    def run(out: Path, measure: Any = None) -> OGEN:
        model = OGEN(PerImage(table, KNOWN), unknown=UNKNOWN, **{**SMALL, "teacher": "almt"})
        train(model, make_bank(table), measure, epochs=4, out=out)
        return model

    def raising(_: Host, epoch: int) -> dict[str, float]:
        if epoch == 3:
            raise Stop
        return {}

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", raising)
    assert same(state(whole), state(run(tmp_path / "parts")))


@pytest.mark.parametrize(
    "change", [{"zero_shot_kl": 0.4}, {"unknown": UNKNOWN[:4]}, {"unknown": None}, {"preset": "paper"}]
)
def test_a_checkpoint_of_other_settings_is_refused(change: dict[str, Any], tmp_path) -> None:
    table = make_table()
    train(OGEN(adapter(table), unknown=UNKNOWN, **SMALL), make_bank(table), epochs=1, out=tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another run \(host\.ogen\.\S+: saved"):
        train(OGEN(adapter(table), **{"unknown": UNKNOWN, **SMALL, **change}), make_bank(table), epochs=1, out=tmp_path)
    with pytest.raises(ValueError, match="use another output folder"):
        train(adapter(table), make_bank(table), epochs=1, out=tmp_path)


# --- saved and loaded -------------------------------------------------------------------------------------

NAMES, OTHER, ARBITRARY = ("dog", "red apple", "train", "hammer"), ("cat", "bus"), ("a green frog", "dog", "piano")


@pytest.fixture(scope="module")
def trained(clip, toy_bank) -> OGEN:
    model = OGEN(CoOp(clip, NAMES, "an icon of a"), unknown=OTHER, **SMALL, zero_shot_share=0.3)
    og.fit(model, toy_bank, epochs=3, batch_size=8, lr=0.2)
    return model


def test_a_saved_run_gives_the_same_weights_for_any_names(trained: OGEN, tmp_path) -> None:
    folder = trained.save(tmp_path / "run", {"note": 1})
    classifier = og.Classifier.load(folder, clip=trained.clip)
    alone = og.load_run(folder)  # needs nothing but the folder
    assert alone.clip is not trained.clip
    for host in (classifier.host, alone):
        assert isinstance(host, OGEN) and not host.training and host.card() == trained.card()
        for names in (None, NAMES, OTHER, ARBITRARY):
            assert torch.equal(host.class_weights(names), trained.class_weights(names))
    start, bare = CoOp(trained.clip, NAMES, "an icon of a"), trained.host
    assert not torch.allclose(trained.class_weights(), start.class_weights(), atol=1e-3)
    assert not torch.allclose(trained.class_weights(OTHER), bare.class_weights(OTHER), atol=1e-3)
    assert torch.equal(trained.text_weights(), bare.class_weights())  # the densities of the images come on top


def test_a_saved_run_is_json_and_safetensors(trained: OGEN, tmp_path) -> None:
    folder = trained.save(tmp_path / "run")
    files = ["evidence.safetensors", "generator.safetensors", "host.safetensors", "run.json"]
    assert sorted(p.name for p in folder.iterdir()) == files
    record = json.loads((folder / "run.json").read_text())
    assert record["method"] == "coop" and record["ogen"] == trained.card() and "ogen" not in record["config"]
    assert set(load_file(folder / "host.safetensors")) == {"context"}
    for name in files[:3]:
        with safe_open(folder / name, framework="pt") as file:
            assert len(file.keys()) > 0


def test_the_saved_generator_makes_the_same_rows(trained: OGEN, tmp_path) -> None:
    folder = trained.save(tmp_path / "run")
    generator = og.load_generator(folder / "generator.safetensors")
    new = trained.anchor(OTHER)
    rows = [g.synthesize(new, 5, generator=seeded()) for g in (generator, trained.rows.generator)]
    assert torch.equal(*rows) and rows[0].shape == (10, trained.clip.embed_dim)


def test_a_run_without_generator_writes_none(tmp_path) -> None:
    table = make_table()
    model = OGEN(adapter(table), unknown=UNKNOWN, preset="zero-shot-kl")
    train(model, make_bank(table), epochs=1)
    folder = model.save(tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == ["host.safetensors", "run.json"]
    again = og.load_run(folder, clip=table)
    assert torch.equal(again.class_weights(UNKNOWN), model.class_weights(UNKNOWN))


def test_a_run_saved_again_keeps_its_generator(trained: OGEN, tmp_path) -> None:
    first = trained.save(tmp_path / "first")
    second = og.load_run(first, clip=trained.clip).save(tmp_path / "second")
    name = "generator.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_run_saved_over_another_leaves_no_generator_of_it(trained: OGEN, tmp_path) -> None:
    table = make_table()
    trained.save(tmp_path)
    bare = OGEN(adapter(table), unknown=UNKNOWN, preset="zero-shot-kl")
    bare.save(tmp_path)
    assert not (tmp_path / "generator.safetensors").exists()


def test_a_checkpoint_holds_no_training_features(tmp_path) -> None:
    model = OGEN(adapter(make_table()), unknown=UNKNOWN, **{**SMALL, "preset": "paper"})
    bank = make_bank(model.clip)
    train(model, bank, epochs=1, out=tmp_path)
    kept = load_file(tmp_path / "checkpoint.safetensors")
    shapes = {tuple(v.shape) for v in kept.values()}
    assert any("generator" in name for name in kept)
    assert not any(len(bank.features) * bank.features.shape[1] in shape for shape in shapes)


def test_free_rows_of_unknown_names_are_saved(tmp_path) -> None:
    table = make_table()
    model = OGEN(TaskRes(table, KNOWN, "{}", extra_names=UNKNOWN), unknown=UNKNOWN, **SMALL)
    train(model, make_bank(table), epochs=2)
    again = og.load_run(model.save(tmp_path), clip=table)
    assert torch.equal(again.class_weights(UNKNOWN), model.class_weights(UNKNOWN))
    zero_shot = TaskRes(table, KNOWN, "{}").class_weights(UNKNOWN)
    assert not torch.allclose(again.class_weights(UNKNOWN), zero_shot, atol=1e-3)


def test_a_run_without_ogen_still_loads(clip, tmp_path) -> None:
    host = CoOp(clip, NAMES, "an icon of a")
    folder = host.save(tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert record["ogen"] is None
    for change in ({}, {"ogen": "left out"}):  # as runs were written before OGEN
        if change:
            del record["ogen"], record["sha256"], record["files"]
            (folder / "run.json").write_text(json.dumps(record))
        again = og.load_run(folder, clip=clip)
        assert type(again) is CoOp and torch.equal(again.class_weights(OTHER), host.class_weights(OTHER))


def test_what_is_saved_is_the_hosts(tmp_path) -> None:
    """The file of a host with OGEN opens as a host's without."""
    table = make_table()
    model = OGEN(adapter(table), unknown=UNKNOWN, **SMALL)
    train(model, make_bank(table), epochs=1)
    folder = model.save(tmp_path)
    bare = adapter(table)
    bare.load_state_dict(load_file(folder / "host.safetensors"))
    assert same(tensors_of(bare), tensors_of(model))
    assert isinstance(og.load_run(folder, clip=table), OGEN) and isinstance(table, EmbeddingTable)


# --- two processes ----------------------------------------------------------------------------------------

SHARED_OUT: dict[str, dict[str, Any]] = {**RECIPES, "held-out": {"unknown": None}}

SCRIPT = """
    import sys
    import torch
    from safetensors.torch import save_file
    from ogen_world import SMALL, UNKNOWN, adapter, make_bank, make_table, train, values
    from test_ogen_runs import SHARED_OUT, of_recipe
    from ogenlib import OGEN
    from ogenlib.utils import distributed

    torch.set_num_threads(1)
    distributed.start("cpu")
    table = make_table()
    ends = {recipe: of_recipe(recipe, table) for recipe in SHARED_OUT}
    for model in ends.values():
        train(model, make_bank(table), epochs=4, batch_size=7)
    ends["warm"] = OGEN(adapter(table), unknown=UNKNOWN, preset="paper", warmup=0.9, **SMALL)
    def stop(*_):
        raise KeyboardInterrupt
    try:
        train(ends["warm"], make_bank(table), stop, epochs=2, batch_size=7)  # the first epoch is warm-up
    except KeyboardInterrupt:
        pass
    if distributed.is_main():
        for name, model in ends.items():
            save_file(values(model), f"{sys.argv[1]}-{name}")
    distributed.barrier()
    distributed.stop()
"""


def of_recipe(name: str, table: EmbeddingTable) -> OGEN:
    return OGEN(adapter(table), **{"unknown": UNKNOWN, **SMALL, **SHARED_OUT[name]})


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path) -> None:
    table = make_table()
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    two_of(str(script), str(tmp_path / "two"), **BESIDE)
    for recipe in SHARED_OUT:
        one, two = of_recipe(recipe, table), load_file(tmp_path / f"two-{recipe}")
        train(one, make_bank(table), epochs=4, batch_size=7)
        assert not same(tensors_of(one), tensors_of(adapter(table)))
        for name, value in tensors_of(one).items():
            torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0, msg=lambda m: f"{recipe}: {m}")  # noqa: B023
    # Stopped in its warm-up: parameters without gradients stay as they were, without weight decay.
    assert same(load_file(tmp_path / "two-warm"), tensors_of(adapter(table)))
