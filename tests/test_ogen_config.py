"""OGEN's settings, presets and card, and what it refuses."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from ogen_world import KNOWN, OFF, SPARE, UNKNOWN, adapter, make_bank, make_table, shaken

from ogenlib import OGEN, OGENConfig
from ogenlib.hosts import CoOp, ZeroShot, method
from ogenlib.ogen.config import PRESETS, ogen_config

# --- settings ---------------------------------------------------------------------------------------------


def test_presets() -> None:
    assert set(PRESETS) == {"ogenlib", "paper", "released-code", "zero-shot-kl"}
    assert ogen_config() == ogen_config(kind="prompt") == OGENConfig()
    paper, released, baseline = (ogen_config(n) for n in ("paper", "released-code", "zero-shot-kl"))
    assert (paper.generator, paper.teacher, paper.joint, paper.synthesize) == ("joint", "almt", True, "all")
    assert (released.generator, released.teacher, released.joint) == ("released", None, True)
    assert (baseline.generator, baseline.teacher, baseline.zero_shot_kl) == (None, None, 1.0)
    for config in (paper, released, baseline):
        assert config.zero_shot_share == 0 and config.evidence == 0  # mixed weights and densities are this library's


def test_overrides_replace_fields_and_nothing_else() -> None:
    changed = ogen_config("paper", k=5, teacher=None)
    assert changed.as_dict() == {**ogen_config("paper").as_dict(), "k": 5, "teacher": None}
    assert ogen_config("paper").k == 3
    adapter = ogen_config(kind="adapter")
    beside = {"evidence": 1.0, "evidence_zero_shot": 0.5}
    assert adapter == replace(OGENConfig(), zero_shot_share=0.3, zero_shot_kl=0.1, name_groups=1, **beside)
    assert ogen_config("zero-shot-kl", "adapter") == replace(ogen_config("zero-shot-kl"), name_groups=1)
    assert ogen_config("paper", "adapter") == ogen_config("paper")  # a published recipe is the same for every host
    tuned = ogen_config(kind="fine-tuning")
    assert tuned == replace(ogen_config(), m_max=3, evidence=0.0)  # up to four copies of a tower, not ten
    assert ogen_config(kind="fine-tuning", m_max=9, evidence=0.75) == ogen_config()
    assert ogen_config(kind="adapter", zero_shot_share=0.7).zero_shot_share == 0.7
    for kind in ("visual prompt", "anchored prompt"):
        assert ogen_config(kind=kind) == replace(OGENConfig(), zero_shot_kl=0.1)
    for written in (PRESETS, *PRESETS.values()):
        with pytest.raises(TypeError):
            written["paper"] = {}  # type: ignore[index]
    assert OGENConfig(**json.loads(json.dumps(changed.as_dict()))) == changed


def test_the_names_of_presets_are_told_without_torch() -> None:
    code = "import runpy, sys; told = runpy.run_path(sys.argv[1])['PRESETS']; print('torch' in sys.modules, *told)"
    asked = [sys.executable, "-c", code, inspect.getfile(ogen_config)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *PRESETS]


def test_the_kind_of_a_host_is_its_own_but_for_prompts_on_the_image_side() -> None:
    expected = {
        "coop": "prompt",
        "vpt": "visual prompt",
        "promptsrc": "visual prompt",
        "prograd": "anchored prompt",
        "taskres": "adapter",
        "full_ft": "fine-tuning",
        "zero_shot": "baseline",
    }
    assert {name: method(name).ogen_kind() for name in expected} == expected
    table = make_table()
    assert OGEN(adapter(table)).config_ == ogen_config(kind=adapter(table).ogen_kind())


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({name: value}, rf"^{name}={value}: must be 0 or more") for value in (-0.5, NAN, INF) for name in (
            "generator_weight", "host_weight", "zero_shot_kl", "synthesized_kl", "synthesized_ce",
            "synthesized_ce_within", "teacher_weight")),
        *(({name: 0}, f"^{name}=0: must be 1 or more") for name in ("rows", "per_class", "iterations", "name_groups")),
        ({"name_groups": 7}, "^name_groups=7: at most 6"),
        *(({name: 0}, f"^{name}=0: must be 1 or more") for name in ("k", "heads")),
        ({"m_min": -1}, "^m_min=-1: must be 0 or more"),
        ({"m_min": 4, "m_max": 3}, "^m_max=3: must be 4 or more"),
        *(({name: v}, f"^{name}={v}: must be 0 or more and below 1") for v in (-0.1, 1.0, NAN)
          for name in ("dropout", "decay", "pseudo_unknown")),
        ({"generator": "gan"}, "^generator='gan': must be one of None, joint, .*, shift, text-only$"),
        ({"spread": "wide"}, "^spread='wide': must be one of residual, none$"),
        ({"synthesize": "both"}, "^synthesize='both': must be one of unknown, known, all$"),
        ({"teacher": "ewma"}, "^teacher='ewma': must be one of None, ema, mean, almt$"),
        ({"teacher_loss": "mse"}, "^teacher_loss='mse': must be one of kl, l2$"),
        *(({"zero_shot_share": s}, f"^zero_shot_share={s}: must be from 0 to 1") for s in (-0.1, 1.5, NAN)),
        *(({"joint": True, "warmup": w}, f"^warmup={w}: must be a share of the epochs, 0 or more and below 1")
          for w in (-0.1, 1.0, NAN)),
        ({"warmup": 0.2}, "^warmup needs joint=True and a generator: nothing would learn before the host does"),
        ({"warmup": 0.2, "joint": True, "generator": None}, "^warmup needs joint=True and a generator"),
        ({"keep_teacher": True, "teacher": None}, "^keep_teacher=True needs a teacher: one of ema, mean, almt"),
        *(({"temperature": t}, f"^temperature={t}: must be a positive number") for t in (0.0, -1.0, INF, NAN)),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OGENConfig(**settings)
    with pytest.raises(ValueError, match=message):  # the host is not needed to find out
        OGEN(adapter(make_table()), preset="ogenlib", **settings)


def test_the_ends_of_the_ranges_are_accepted() -> None:
    OGENConfig(zero_shot_share=1, warmup=0.99, joint=True, rows=1, per_class=1, iterations=1, name_groups=1)
    OGENConfig(zero_shot_share=0, **{k: v for k, v in OFF.items() if k != "zero_shot_share"}, host_weight=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("teachers", "; did you mean 'teacher'?"), ("zero_shot_kI", "; did you mean 'zero_shot_kl'?"), ("xyz", "")],
)
def test_an_unknown_setting_gets_the_closest_one(name: str, hint: str) -> None:
    for call in (ogen_config, lambda **o: OGEN(adapter(make_table()), **o)):
        with pytest.raises(ValueError) as error:
            call(**{name: 1})
        assert str(error.value) == f"OGEN has no setting {name!r}{hint}"


def test_an_unknown_preset_is_refused() -> None:
    for call in (lambda: ogen_config("papers"), lambda: OGEN(adapter(make_table()), preset="papers")):
        with pytest.raises(
            ValueError, match="'papers' is unknown; known are ogenlib, paper, released-code, zero-shot-kl"
        ):
            call()


# --- names ------------------------------------------------------------------------------------------------


def test_bad_names_are_refused(clip) -> None:
    host = adapter(make_table())
    with pytest.raises(
        ValueError, match=r"known \(5 names\) .* made for \(6 names\); make the host .*CoOp\(clip, known"
    ):
        OGEN(host, KNOWN[:5])
    with pytest.raises(ValueError, match="is not what the host was made for"):
        OGEN(host, KNOWN[::-1])  # labels follow the order
    with pytest.raises(
        ValueError, match="unknown and vocabulary were both given; a vocabulary stands in for names held"
    ):
        OGEN(host, unknown=UNKNOWN, vocabulary=SPARE)
    with pytest.raises(
        ValueError, match=r"\['ant', 'bee'\] are in known and unknown; unknown names are those without im"
    ):
        OGEN(host, KNOWN, ("bee", *UNKNOWN, "ant"))
    with pytest.raises(ValueError, match="zero_shot has nothing to train, so OGEN has nothing to add to"):
        OGEN(ZeroShot(host.clip, KNOWN, "{}"))
    with pytest.raises(ValueError, match=r"templates \['photo'\] must each hold"):
        OGEN(host, templates="photo")
    assert OGEN(host, list(KNOWN), UNKNOWN).names == KNOWN


def test_names_are_known_held_out_or_stood_in_for() -> None:
    host = adapter(make_table())
    known = OGEN(host, unknown=[*UNKNOWN, "hen"])
    held_out = OGEN(host)
    stand_ins = OGEN(host, vocabulary=["mole", "ant", "lark", "fox"])
    assert (known.others, held_out.others, stand_ins.others) == (UNKNOWN, (), ("mole", "lark"))
    assert [m.card()["new_names_known_in_training"] for m in (known, held_out, stand_ins)] == [True, False, False]
    assert [m.card()["other_names"] for m in (known, held_out, stand_ins)] == [list(UNKNOWN), [], ["mole", "lark"]]
    assert OGEN(host, unknown=[]).card()["new_names_known_in_training"] is True


@pytest.mark.parametrize("names", [{}, {"unknown": UNKNOWN}, {"unknown": []}, {"vocabulary": SPARE}])
def test_the_card_makes_the_same_again(names: dict[str, Any]) -> None:
    host = shaken(adapter(make_table()))
    model = OGEN(host, preset="paper", templates=["{}", "{}"], **names, k=2, zero_shot_share=0.3)
    card = json.loads(json.dumps(model.card()))
    again = OGEN.from_card(host, card)
    assert again.card() == card and again.config_ == model.config_ and again.scoring.groups == model.scoring.groups
    assert (again.preset, again.others, again.names_known) == ("paper", model.others, model.names_known)
    assert (again.class_weights((*KNOWN, *UNKNOWN)) == model.class_weights((*KNOWN, *UNKNOWN))).all()


def test_what_is_left_to_the_host(clip) -> None:
    host = CoOp(clip, ["dog", "train"], "an icon of a")
    model = OGEN(host, unknown=["cat"])
    assert model.train_settings() == host.train_settings() and model.info is host.info
    config = model.config()
    assert config.pop("ogen") == model.card() and config == host.config()
    assert set(model.trainable()) == {"context"} and set(dict(model.named_parameters())) == {"host.context"}


def test_parameters_of_a_joint_generator_train_along_and_stay_out_of_the_state() -> None:
    table = make_table()
    small = {"k": 2, "heads": 2, "iterations": 2}
    for joint in (False, True):
        model = OGEN(adapter(table), unknown=UNKNOWN, generator="joint", joint=joint, **small)
        model.prepare(make_bank(table, KNOWN), 2, 1)
        named = {n for n in model.trainable() if n.startswith("generator.")}
        assert bool(named) == joint
        assert set(model.trainable()) - named == set(model.host.trainable())
        assert {n.removeprefix("host.") for n in model.state_dict()} == set(model.host.state_dict())
