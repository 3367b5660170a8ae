"""A class registers itself: found by its spellings, listed in its place, and no two share one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ogenlib import hosts
from ogenlib.cli.main import main as ogen
from ogenlib.hosts import METHODS, Host, MethodInfo, build, list_methods, method, method_name, register
from ogenlib.hosts.registry import ELSEWHERE, ORDER, import_all, plain, title
from ogenlib.hosts.zero_shot import AnchoredHost
from ogenlib.runs.saved import load_run
from ogenlib.train.loop import fit

NAMES = ["dog", "red apple", "train", "hammer"]
SOURCE = ("none", "https://arxiv.org/abs/0000.00000", 2026)


class Gains(AnchoredHost):
    """A gain for each dimension of the zero-shot weights."""

    info = MethodInfo("toy_gains", "adapter", *SOURCE, title="Toy-Gains (diagonal)", aliases=("Toy's gain", "TG"))

    def __init__(self, clip: Any, names: Sequence[str], templates: Any = ("a photo of a {}.",)) -> None:
        super().__init__(clip, names, templates)
        self.gain = nn.Parameter(torch.ones(clip.embed_dim))

    def class_weights(self, names: Sequence[str] | None = None, z: Tensor | None = None) -> Tensor:
        return F.normalize(self.gain * self.anchor(self.names if names is None else names), dim=-1)


def named(name: str, **words: Any) -> type[Host]:
    """A class of that name, with these words of its `info`."""
    return type("Named", (Gains,), {"info": MethodInfo(name, words.pop("kind", "adapter"), *SOURCE, **words)})


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = dict(METHODS)
    yield
    for name in set(METHODS) - set(before):
        del METHODS[name]
    assert list(METHODS.items()) == list(before.items())


def test_a_registered_class_is_a_method_like_the_others(clip, toy_bank, tmp_path: Path) -> None:
    assert register(Gains) is Gains
    for spelling in ("toy_gains", "TOY GAINS", "toy-gains", "Toy-Gains (diagonal)", "toys gain", "tg"):
        assert method_name(spelling) == "toy_gains" and method(spelling) is Gains
    assert Gains.info in list_methods() and title("toy_gains") == "Toy-Gains (diagonal)"
    with pytest.raises(ValueError, match="did you mean 'toy_gains'"):
        method("toy gians")

    host = build("Toy-Gains (diagonal)", clip, NAMES, templates=["an icon of a {}."])
    fit(host, toy_bank, epochs=1, seed=1)
    assert isinstance(host, Gains) and not torch.equal(host.gain, torch.ones(clip.embed_dim))
    host.save(tmp_path)
    again = load_run(tmp_path, clip=clip)
    assert type(again) is Gains and torch.equal(again.class_weights(["fox"]), host.class_weights(["fox"]))


def test_a_method_that_is_taken_out_is_gone(clip) -> None:
    register(Gains)
    del METHODS["toy_gains"]
    for spelling in ("toy_gains", "tg"):
        with pytest.raises(ValueError, match=f"'{spelling}' is unknown"):
            build(spelling, clip, NAMES)
    assert Gains.info not in list_methods() and title("toy_gains") == "toy gains"


def test_the_command_line_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    register(Gains)
    assert ogen(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(METHODS)
    assert next(row for row in rows if row["name"] == "toy_gains")["kind"] == "adapter"


@pytest.mark.parametrize(
    "words, spelling",
    [
        ({"name": "coop"}, "coop"), ({"name": "co_op"}, "co_op"), ({"name": "toy", "title": "CoOp"}, "CoOp"),
        ({"name": "toy", "aliases": ("a toy", "c.o.o.p")}, "c.o.o.p"),
    ],
)  # fmt: skip
def test_a_spelling_belongs_to_one_class(words: dict[str, Any], spelling: str) -> None:
    with pytest.raises(ValueError, match=rf"Named is spelled '{spelling}'.*ogenlib.hosts.coop.CoOp.*METHODS\['coop'\]"):
        register(named(**words))
    assert method("coop") is hosts.CoOp and "toy" not in METHODS


def test_an_alias_keeps_others_away() -> None:
    register(Gains)
    for words in ({"name": "tg"}, {"name": "toy", "aliases": ("T.G.",)}):
        with pytest.raises(ValueError, match=r"test_registry\.Gains"):
            register(named(**words))
    with pytest.raises(ValueError, match=r"Named is spelled 'LP'.*LinearProbe"):
        register(named("toy", aliases=("LP",)))


def test_a_class_that_is_written_anew_replaces_its_earlier_self() -> None:
    first, second = named("toy"), named("toy", title="A toy")
    register(first)
    register(second)
    assert method("a toy") is second and list(METHODS).count("toy") == 1


def test_what_is_no_method_is_refused() -> None:
    class Inherits(Gains):
        pass

    with pytest.raises(ValueError, match="Inherits has no `info` of its own"):
        register(Inherits)
    with pytest.raises(ValueError, match=r"Gains is called 'toy_gains', not 'gains'; use register\(Gains\)"):
        METHODS["gains"] = Gains
    with pytest.raises(ValueError, match="kind='prompts' of method 'toy': must be one of baseline, prompt, adapter"):
        named("toy", kind="prompts")
    with pytest.raises(ValueError, match=r"aliases='tg' of method 'toy': pass a tuple, \('tg',\)"):
        named("toy", aliases="tg")


def test_tables_keep_their_order_and_a_new_method_ends_its_kind() -> None:
    assert [name for name in METHODS if name in ORDER] == list(ORDER)
    for name, kind in (("toy_b", "prompt"), ("toy_a", "prompt"), ("toy_c", "baseline")):
        register(named(name, kind=kind))
    listed = [name for name in METHODS if name in ORDER or name.startswith("toy_")]
    assert listed[:2] == ["zero_shot", "toy_c"]
    assert listed[listed.index("toy_a") - 1 :][:4] == ["promptkd", "toy_a", "toy_b", "text_adapter"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_usual_spellings(name: str) -> None:
    info = METHODS[name].info
    usual = (name, name.replace("_", "-"), name.replace("_", " ").upper(), info.title, info.title.lower())
    for spelling in (*usual, *info.aliases, *map(str.upper, info.aliases)):
        assert method(spelling) is METHODS[name] and method_name(spelling) == name
    assert not {plain(spelling) for spelling in (*usual, *info.aliases)} & {"", *ELSEWHERE}
    # An alias that says again what name or title say finds nothing more.
    assert len({plain(s) for s in (name, *info.aliases)}) == 1 + len(info.aliases)
    assert not {plain(info.title)} & set(map(plain, info.aliases))


def test_all_spellings_are_distinct() -> None:
    spelled = [{plain(s) for s in (i.name, i.title, *i.aliases)} for i in list_methods()]
    assert len(set().union(*spelled)) == sum(map(len, spelled)) > len(METHODS)
    assert len({info.title for info in list_methods()}) == len(METHODS)


def test_other_usual_spellings() -> None:
    asked = ("full fine-tuning", "LP-FT", "r-adapter", "Lipsum", "L2-SP", "CLIP", "tip adapter f", "Self distillation")
    assert [method_name(s) for s in asked] == [
        "full_ft",
        "lp_ft",
        "r_adapter",
        "lipsum_ft",
        "l2_sp",
        "zero_shot",
        "tip_adapter_f",
        "kd",
    ]
    with pytest.raises(ValueError, match=r"'WiSE-FT' is unknown; .* between the start and the end of any method"):
        method("WiSE-FT")


def test_an_unknown_method_is_named_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"'coup' is unknown.*did you mean 'coop'"):
        method("coup")


def test_a_file_in_the_folder_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toy_papers"
    (package / "parts").mkdir(parents=True)
    for file in (package / "__init__.py", package / "shared.py", package / "parts" / "__init__.py"):
        file.write_text("")
    (package / "method.py").write_text(
        "from ogenlib.hosts import FullFT, MethodInfo, register\n\n"
        f"@register\nclass Toy(FullFT):\n    info = MethodInfo('toy_file', 'fine-tuning', *{SOURCE})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import_all("toy_papers", [str(package)])
    assert method("toy-file").__module__ == "toy_papers.method" and "toy_papers.parts" not in sys.modules
    for module in [m for m in sys.modules if m.partition(".")[0] == "toy_papers"]:
        del sys.modules[module]


def test_every_class_is_in_the_package_and_typed_names_are_there() -> None:
    for cls in METHODS.values():
        if cls.__module__.startswith("ogenlib.hosts."):
            assert getattr(hosts, cls.__name__) is cls
    assert all(hasattr(hosts, name) for name in hosts.__all__)
