"""Models that bring code, files from elsewhere, or numbers that no model has: one line each, and nothing runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip.factory import _find_checkpoint_in_dir
from safetensors.torch import load_file, save_file
from torch import Tensor

from ogenlib.towers import load_backbone
from ogenlib.towers import source as source_module
from ogenlib.towers.folder import write_open_clip
from ogenlib.utils.tensors import recorded_digest, write_tensors

from .conftest import CONFIGS, write_roberta

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
class EvilConfig(RobertaConfig):
    model_type = "evil"
"""


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No prompt, no network, no trace of the code that comes with a model."""

    def asked(*_: object) -> str:
        pytest.fail("a prompt")

    def connects(*arguments: object, **_: object) -> None:
        pytest.fail(f"a connection: {arguments}")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(socket, "getaddrinfo", connects)
    monkeypatch.setattr(socket.socket, "connect", connects)
    yield
    assert not (tmp_path / "RAN").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model to change."""
    target = tmp_path / "model"
    shutil.copytree(Path(source_module.__file__).parent / "ogen_tiny", target)
    return target


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of `model_cfg`; ``text_cfg__width=3`` one of a part."""
    document = json.loads((folder / CONFIG).read_text())
    for name, value in changes.items():
        *parts, key = name.split("__")
        place = document["model_cfg"] if parts != ["preprocess_cfg"] else document
        for part in parts:
            place = place[part]
        place[key] = value
    (folder / CONFIG).write_text(json.dumps(document))
    return folder


def refused(folder: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(ValueError) as caught:
        load_backbone(f"local-dir:{folder}", **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 800 and str(folder) in message, message
    assert all(part in message for part in parts), message


def with_code(folder: Path, marker: Path) -> Path:
    """A tokenizer whose class is in a file beside it."""
    write_roberta(folder)
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    place = folder / "tokenizer_config.json"
    settings = json.loads(place.read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "evil.EvilTokenizer"]}, "tokenizer_class": "EvilTokenizer"}
    place.write_text(json.dumps(settings))
    return edit(folder, text_cfg__hf_tokenizer_name="evil")


def change(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**document, **changes}))


def test_code_of_a_tokenizer_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_code(folder, tmp_path / "RAN")
    refused(folder, "tokenizer_config.json", "'auto_map'")
    edit(folder, text_cfg__tokenizer_kwargs={"trust_remote_code": True})
    refused(folder, CONFIG, "text_cfg.tokenizer_kwargs", "'trust_remote_code': True")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    open_clip.get_tokenizer(f"local-dir:{folder}")  # open_clip runs it, or this test would prove nothing
    (tmp_path / "RAN").unlink()


LOADERS = (
    "trust_remote_code",
    "code_revision",
    "revision",
    "cache_dir",
    "token",
    "tokenizer_file",
    "gguf_file",
    "bpe_path",
    "subfolder",
    "config",
    "anything",
)


@pytest.mark.parametrize("key", LOADERS)
def test_arguments_of_loaders_are_refused(folder: Path, key: str) -> None:
    refused(edit(folder, text_cfg__tokenizer_kwargs={key: True}), CONFIG, "tokenizer_kwargs", repr(key), "clean")


def test_a_built_in_name_is_looked_at_too(tmp_path: Path, registry: dict[str, str]) -> None:
    text = {**CONFIGS["clip"]["text_cfg"], "tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}
    path = tmp_path / "ogenlib-test-hostile.json"
    path.write_text(json.dumps({"embed_dim": 48, **CONFIGS["clip"], "text_cfg": text}))
    open_clip.add_model_config(path)
    with pytest.raises(ValueError, match=r"configuration 'ogenlib-test-hostile'.*'bpe_path'"):
        load_backbone("ogenlib-test-hostile")
    path.write_text(json.dumps({"embed_dim": 48, **CONFIGS["clip"]}))
    open_clip.add_model_config(path)
    for name in open_clip.list_models():
        if name.startswith("ogenlib-test"):  # some are for a later open_clip
            continue
        source_module.check_model(open_clip.get_model_config(name) or {}, name)


FILES = {
    "tokenizer auto_map": ("tokenizer_config.json", {"auto_map": ["evil.Evil", None]}, "'auto_map'"),
    "config auto_map": ("config.json", {"auto_map": {"AutoConfig": "evil.EvilConfig"}}, "'auto_map'"),
    "of another repository": ("config.json", {"auto_map": {"AutoTokenizer": ["a/b--evil.Evil", None]}}, "'auto_map'"),
    "processor": ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Evil"}}, "'auto_map'"),
    "deep inside": ("config.json", {"a": [{"b": {"auto_map": {"AutoConfig": "evil.E"}}}]}, "'auto_map'"),
    "another file": ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "'configuration_files'"),
    "a model for a tokenizer": ("tokenizer_config.json", {"tokenizer_class": "AutoModel"}, "'tokenizer_class'"),
    "itself for a tokenizer": ("tokenizer_config.json", {"tokenizer_class": "AutoTokenizer"}, "'tokenizer_class'"),
    "a class by number": ("config.json", {"tokenizer_class": 3}, "'tokenizer_class'"),
    "kernels": ("config.json", {"attn_implementation": "org/kernels"}, "loads code from a hub"),
    "a vocabulary elsewhere": ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "'vocab_file'"),
}  # fmt: skip


@pytest.mark.parametrize("file, content, part", FILES.values(), ids=FILES)
def test_files_of_transformers_are_looked_at(
    folder: Path, tmp_path: Path, file: str, content: dict[str, Any], part: str
) -> None:
    with_code(folder, tmp_path / "RAN")
    change(folder / "tokenizer_config.json", auto_map=None, tokenizer_class=None)
    change(folder / file, **content)
    refused(folder, file, part)
    (folder / file).write_text("[" * 100_000)
    refused(folder, file, "nested too deep")
    (folder / file).write_text("[]")
    refused(folder, file, "no JSON object")


def test_a_tokenizer_without_code_opens(folder: Path) -> None:
    write_roberta(folder)
    edit(folder, text_cfg__hf_tokenizer_name="whatever", text_cfg__tokenizer_kwargs={"clean": "lower"})
    opened = open_clip.get_tokenizer(f"local-dir:{folder}", trust_remote_code=False)
    source = source_module.find_source(f"local-dir:{folder}")
    from ogenlib.towers import backbone

    backbone._check_texts(source, download=False)
    assert type(backbone._tokenizer(source, download=False)) is type(opened)
    (folder / "tokenizer.json").unlink()
    refused(folder, CONFIG, "tokenizer", "could not be opened")


def test_a_text_tower_of_transformers_is_looked_at(folder: Path, tmp_path: Path) -> None:
    tower = tmp_path / "tower"
    tower.mkdir()
    with_code(shutil.copytree(folder, tower, dirs_exist_ok=True), tmp_path / "RAN")
    change(tower / "config.json", auto_map={"AutoConfig": "evil.EvilConfig"}, model_type="evil")
    edit(folder, text_cfg__hf_model_name=str(tower))
    with pytest.raises(ValueError, match=r"tower/config\.json: 'auto_map'"):
        load_backbone(f"local-dir:{folder}")
    change(tower / "config.json", auto_map=None)
    with pytest.raises(ValueError, match=r"tower/config\.json: model_type is 'evil', accepted.*roberta"):
        load_backbone(f"local-dir:{folder}")
    change(tower / "config.json", model_type="roberta", vocab_size=10**12)
    refused(folder, "do not belong together")
    with pytest.raises(FileNotFoundError, match=r"'org/absent': config\.json is not on this machine.*download=True"):
        load_backbone(f"local-dir:{edit(folder, text_cfg__hf_model_name='org/absent')}", download=False)


@pytest.mark.parametrize("name", ["hf-hub:org/evil", "local-dir:/evil", "local_dir:evil", "org/evil"])
def test_timm_loads_nothing_from_elsewhere(folder: Path, name: str) -> None:
    refused(edit(folder, vision_cfg__timm_model_name=name), CONFIG, "vision_cfg.timm_model_name", name)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"surprise": 1}, "model_cfg has the unknown key 'surprise'"),
    "unknown key of a part": ({"text_cfg__surprise": 1}, "text_cfg has the unknown key 'surprise'"),
    "an argument that is taken": ({"cast_dtype": "x"}, "'cast_dtype'"),
    "text for a number": ({"vision_cfg__width": "wide"}, "vision_cfg.width"),
    "list for a number": ({"text_cfg__layers": [3]}, "text_cfg.layers"),
    "number for a name": ({"text_cfg__hf_tokenizer_name": 3}, "text_cfg.hf_tokenizer_name"),
    "no part": ({"vision_cfg": None}, "no vision_cfg"),
    "a part of another kind": ({"text_cfg": []}, "no text_cfg"),
    "no width": ({"embed_dim": None}, "no embed_dim"),
    "kwargs of another kind": ({"text_cfg__tokenizer_kwargs": ["trust_remote_code"]}, "text_cfg.tokenizer_kwargs"),
    "kwarg of another type": ({"text_cfg__tokenizer_kwargs": {"clean": []}}, "'clean'"),
    "a width for another model": ({"text_cfg__width": 64}, "could not be loaded"),
    "heads that do not divide": ({"text_cfg__heads": 7}, "could not be loaded"),
    "a clean that there is not": ({"text_cfg__tokenizer_kwargs": {"clean": "x"}}, "could not be opened"),
    "few words": ({"text_cfg__vocab_size": 10}, "could not be loaded"),
    "a norm that there is not": ({"text_cfg__norm_kwargs": {"device": "nowhere"}}, "could not be loaded"),
    "zero layers": ({"text_cfg__layers": 0}, "text_cfg.layers is 0"),
    "no patch": ({"vision_cfg__patch_size": 0}, "vision_cfg.patch_size is 0"),
    "below zero": ({"text_cfg__width": -128}, "text_cfg.width is -128"),
    "many layers": ({"text_cfg__layers": 10**6}, "1000 at most"),
    "wide": ({"vision_cfg__width": 10**9}, "do not belong together"),
    "wider than any number": ({"vision_cfg__width": 10**400}, "vision_cfg.width"),
    "large embeddings": ({"embed_dim": 10**9}, "do not belong together"),
    "many words": ({"text_cfg__vocab_size": 10**9}, "do not belong together"),
    "long texts": ({"text_cfg__context_length": 10**6}, "do not belong together"),
    "large images": ({"vision_cfg__image_size": 10**7}, "do not belong together"),
    "large images on one side": ({"vision_cfg__image_size": [48, 2 * 10**9]}, "do not belong together"),
    "wide blocks": ({"text_cfg__mlp_ratio": 1e308}, "do not belong together"),
    "wide blocks below zero": ({"text_cfg__mlp_ratio": -1e12}, "do not belong together"),
    "many queries": ({"vision_cfg__attentional_pool": True, "vision_cfg__attn_pooler_queries": 10**9}, "together"),
    "mean of two": ({"preprocess_cfg__mean": [0.5, 0.5]}, "preprocess_cfg.mean"),
    "deviation 0": ({"preprocess_cfg__std": [0.5, 0.5, 0]}, "preprocess_cfg.std"),
    "mode": ({"preprocess_cfg__mode": "CMYK"}, "preprocess_cfg.mode"),
    "resize": ({"preprocess_cfg__resize_mode": 3}, "preprocess_cfg.resize_mode"),
}  # fmt: skip


@pytest.mark.parametrize("changes, part", WRONG.values(), ids=WRONG)
def test_configurations_of_no_model(folder: Path, changes: dict[str, Any], part: str) -> None:
    refused(edit(folder, **changes), part)


def test_configurations_that_are_no_configuration(folder: Path) -> None:
    for content, part in {
        "": "cannot be read as JSON",
        "[" * 100_000: "nested too deep",
        "[]": "no model_cfg",
        '{"model_cfg": 3}': "no model_cfg",
        '{"model_cfg": {}}': "no vision_cfg",
        '{"a": NaN}': "NaN",
        "\x00": "JSON",
        '{"a": ' + "9" * 10_000 + "}": "JSON",
    }.items():
        (folder / CONFIG).write_text(content)
        refused(folder, CONFIG, part)
    (folder / CONFIG).write_bytes(b"\xff\xfe\x00")
    refused(folder, CONFIG)


def test_weights_in_a_folder_are_checked(folder: Path) -> None:
    path = folder / WEIGHTS
    whole, state = path.read_bytes(), load_file(path)
    save_file({**state, "logit_scale": torch.tensor(float("nan"))}, path)
    refused(folder, WEIGHTS, "'logit_scale'", "not finite")
    write_tensors(path, state)
    load_backbone(f"local-dir:{folder}")
    sealed = bytearray(path.read_bytes())
    sealed[-1000] ^= 1
    path.write_bytes(sealed)
    refused(folder, WEIGHTS, "was changed after it was written")
    for content in (b"", whole[:-1], whole[:100], b"x" * 1000):
        path.write_bytes(content)
        refused(folder, WEIGHTS, "cannot be read as a safetensors file")
    save_file({}, path)
    refused(folder, "could not be loaded")


def test_weights_of_torch_in_a_folder_are_checked(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(state, path)
    expected = load_backbone("ogen-tiny").weights_hash
    assert load_backbone(f"local-dir:{folder}").weights_hash == expected
    torch.save(state, path, _use_new_zipfile_serialization=False)
    refused(folder, path.name, "before 1.6", "torch.save")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    refused(folder, path.name, "ogen convert openai")


def test_the_file_that_is_checked_is_the_one_that_is_opened(folder: Path) -> None:
    """open_clip takes this one of two, and is asked which."""
    (folder / WEIGHTS).rename(folder / "model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"garbage")
    assert Path(_find_checkpoint_in_dir(folder) or "").name == "open_clip_pytorch_model.bin"
    refused(folder, "open_clip_pytorch_model.bin", "no zip file")


def test_garbage_for_pretrained(tmp_path: Path, registry: dict[str, str]) -> None:
    """One line, the file first; never torch's advice to trust it."""
    good = tmp_path / "good.pt"
    torch.save(open_clip.create_model(registry["clip"]).state_dict(), good)
    load_backbone(registry["clip"], good)
    whole = good.read_bytes()
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(50 * 2**20))
    contents = {
        "empty.pt": b"",
        "text.pt": b"hello\n" * 100,
        "torn.pt": whole[:-200],
        "pickle.pt": b"\x80\x04N.",
        "torn.npz": b"PK",
        "text.npz": b"x",
        "text.safetensors": b"hello" * 9,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save({"weights": 3}, tmp_path / "none.pt")
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    (tmp_path / "changed.pt").write_bytes(changed)
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    names = [*contents, "bomb.pt", "other.safetensors", "other.pt", "none.pt", "changed.pt", "folder.pt", "pipe.pt"]
    for name in names:
        with pytest.raises(ValueError) as caught:
            load_backbone(registry["clip"], tmp_path / name)
        message = str(caught.value)
        assert name in message and "\n" not in message and len(message) < 800, message
        assert "weights_only=False" not in message and "trusted source" not in message, message


def test_a_folder_without_a_slash_has_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_backbone("local-dir:model").weights_hash == load_backbone("ogen-tiny").weights_hash
    assert "random" not in caplog.text


@pytest.mark.slow
def test_nothing_is_fetched_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: dict[str, str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    before = constants.HF_HUB_OFFLINE
    for name, tag, what in (
        ("hf-hub:org/model", None, CONFIG),
        ("ViT-B-16", "laion2b_s34b_b88k", "laion2b_s34b_b88k"),
        ("RN50-quickgelu", "yfcc15m", "yfcc15m"),
        (registry["siglip"], None, "tokenizer"),
        ("roberta-ViT-B-32", None, "config.json"),
        ("ViT-B-16-SigLIP", None, "tokenizer"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            load_backbone(name, tag, download=False)
        message = str(caught.value)
        assert what in message and "download=True" in message and "--download" in message and "\n" not in message
        assert before == constants.HF_HUB_OFFLINE


def test_what_was_fetched_before_is_opened(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "models--org--model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    shutil.copytree(folder, cache / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    opened = load_backbone("hf-hub:org/model", download=False)
    assert opened.weights_hash == load_backbone("ogen-tiny").weights_hash
    edit(cache / "snapshots" / commit, text_cfg__tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(ValueError, match="tokenizer_kwargs has 'trust_remote_code'"):
        load_backbone("hf-hub:org/model", download=False)


def test_a_written_folder_has_a_digest_and_ordinary_permissions(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    previous = os.umask(0o027)
    try:
        write_open_clip(load_backbone("ogen-tiny"), out)
    finally:
        os.umask(previous)
    assert recorded_digest(out / WEIGHTS) is not None
    assert {entry.stat().st_mode & 0o777 for entry in out.iterdir()} == {0o640}
    state: dict[str, Tensor] = open_clip.create_model(f"local-dir:{out}").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in load_backbone("ogen-tiny").model.state_dict().items())
