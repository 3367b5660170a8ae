"""torch archives are read without running them; hostile and odd ones end in one line that names the file."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ogenlib.towers import archive as archive_module
from ogenlib.towers import convert_openai, load_backbone
from ogenlib.towers.checkpoint import check_state_dict, read_state_dict

FIX = "use another file"


def tensors() -> dict[str, Any]:
    """Every way in which a tensor can lie in its storage, and every type that is read."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    return {
        "whole": base,
        "tied": base,
        "rows": base[1:3],
        "turned": base.t(),
        "one": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "parameter": nn.Parameter(base[0].clone()),
        "images": torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
        **{str(kind).partition(".")[2]: (8 * base).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_state_dict_is_what_torch_reads(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pt"
    torch.save({"epoch": 3, "lr": 0.5, "state_dict": tensors()}, path, pickle_protocol=protocol)
    found, expected = read_state_dict(path, FIX), torch.load(path, weights_only=True)["state_dict"]
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
        assert found[name].stride() == value.stride()
    assert found["whole"].data_ptr() == found["tied"].data_ptr()
    assert check_state_dict(path, FIX) is False


def test_a_checkpoint_with_its_optimizer_is_read(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=8)
    optimizer = torch.optim.AdamW(layer.parameters(), amsgrad=True)
    layer(torch.randn(2, 3, 16)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 1, "state_dict": layer.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt", FIX).keys() == layer.state_dict().keys()


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.attn_mask = torch.full((3, 3), float("-inf"))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.attn_mask.sum()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), Inner())
        self.input_resolution = 224
        self.weight = nn.Parameter(torch.randn(4, 2).half().t())
        self.register_buffer("vocab_size", torch.tensor(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def test_torchscript_gives_the_tensors_of_its_modules(tmp_path: Path) -> None:
    torch.manual_seed(0)
    script = torch.jit.script(Outer())
    script.save(str(tmp_path / "a.pt"))
    found = read_state_dict(tmp_path / "a.pt", FIX)
    assert check_state_dict(tmp_path / "a.pt", FIX) is True
    state = script.state_dict()
    # What is neither parameter nor buffer is a tensor of its module all the same.
    assert set(found) == set(state) | {"blocks.0.attn_mask", "blocks.1.attn_mask"}
    assert all(torch.equal(found[name], value) for name, value in state.items())


class Overwrites(nn.Module):
    """Writes zeros over a file of the reader when it is loaded."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim, self.weight = victim, torch.zeros(2)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.victim, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.victim, self.weight, self.training = state
        self.weight = torch.from_file(self.victim, shared=True, size=16, dtype=torch.uint8)
        self.weight.fill_(0)

    def forward(self, x: Tensor) -> Tensor:
        return x


class NeverEnds(Overwrites):
    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.victim, self.weight, self.training = state
        while bool(self.weight.sum() == 0):
            pass


def test_the_code_of_torchscript_is_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_bytes(b"what the reader keeps")
    archive = tmp_path / "a.pt"
    torch.jit.script(Overwrites(str(victim))).save(str(archive))
    refused(lambda: convert_openai(archive, tmp_path / "out"), archive, "neither a TorchScript archive")
    assert victim.read_bytes() == b"what the reader keeps"
    torch.jit.load(str(archive))  # so does torch itself, or this test would prove nothing
    assert victim.read_bytes() != b"what the reader keeps"
    torch.jit.script(NeverEnds("")).save(str(archive))
    refused(lambda: convert_openai(archive, tmp_path / "out"), archive, "neither a TorchScript archive")


def refused(call: Callable[[], object], path: Path, *parts: str) -> None:
    """One line, the file first, and no advice to trust it."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 800, message
    assert all(part in message for part in parts), message
    assert "weights_only=False" not in message and "trust the source" not in message


def read(path: Path) -> Callable[[], object]:
    return lambda: read_state_dict(path, FIX)


def pack(path: Path, program: bytes, **records: bytes) -> Path:
    """An archive of torch's layout around a program and the records ``data/NAME``."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", program)
        for name, content in records.items():
            file.writestr(f"a/data/{name.removeprefix('r')}", content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def stored(shape: tuple[int, ...], stride: tuple[int, ...], count: int = 4, offset: int = 0, key: str = "0") -> bytes:
    """The program of a tensor of fp32."""
    sizes = b"".join(b"(" + b"".join(map(number, part)) + b"t" for part in (shape, stride))
    place = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + number(offset) + sizes + b"\x89Ntr".replace(b"tr", b"tR")


def state(*parts: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(parts) + b"u."


FOUR = torch.arange(4.0)


def four(path: Path, program: bytes) -> Path:
    return pack(path, program, r0=FOUR.numpy().tobytes())


def test_a_program_made_by_hand_is_read(tmp_path: Path) -> None:
    path = four(tmp_path / "a.pt", state(text("w"), stored((2, 2), (2, 1))))
    assert torch.equal(read_state_dict(path, FIX)["w"], FOUR.reshape(2, 2))


BAD_TENSORS = {
    "beyond its record": (stored((2, 2), (4, 1)), "reaches beyond its record"),
    "from beyond": (stored((1,), (1,), offset=4), "reaches beyond its record"),
    "one number a billion times": (stored((10**9,), (0,)), "reaches beyond its record"),
    "sizes whose product overflows": (stored((2**33, 2**33), (0, 0)), "reaches beyond its record"),
    "below 0": (stored((2,), (-1,)), "sizes are no numbers"),
    "more sizes than strides": (stored((2, 2), (1,)), "sizes are no numbers"),
    "a record that is not there": (stored((2,), (1,), key="7"), "no record 'data/7'"),
    "a record outside": (stored((2,), (1,), key="../../data.pkl"), "no record"),
    "a record of another size": (stored((2,), (1,), count=5), "has another size"),
    "a storage of no numbers": (stored((2,), (1,)).replace(b"FloatStorage", b"UntypedStorage"), "UntypedStorage"),
}  # fmt: skip


@pytest.mark.parametrize("program, part", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_tensor_stays_inside_its_record(tmp_path: Path, program: bytes, part: str) -> None:
    path = four(tmp_path / "a.pt", state(text("w"), program))
    refused(read(path), path, part)


class Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def deep(opcode: bytes, count: int = 200_000) -> bytes:
    return b"\x80\x02" + b"]" + opcode * count + b"."


PROGRAMS = {
    "system": (pickle.dumps(Calls(os.system, "touch RAN"), 2), "system"),
    "eval": (pickle.dumps(Calls(eval, "open('RAN', 'w')"), 4), "eval"),
    "from_file": (b"\x80\x02ctorch\nfrom_file\n(" + text("RAN") + b"\x88K\x04tR.", "torch.from_file"),
    "a class": (pickle.dumps({"w": Path("RAN")}, 2), "pathlib"),
    "a text that is called": (b"\x80\x02" + text("os.system") + text("touch RAN") + b"\x85R.", "damaged"),
    "an opcode of old": (b"cos\nsystem\n(S'touch RAN'\ntR.", "system"),
    "INST": (b"(S'touch RAN'\nios\nsystem\n.", "opcode STRING"),
    "a name": (pickle.dumps({"w": 1, "v": {}}, 2), "does not hold a state dict"),
    "an empty dictionary": (pickle.dumps({}, 2), "does not hold a state dict"),
    "a number": (pickle.dumps(3, 2), "does not hold a state dict"),
    "nothing": (b"", "damaged"),
    "no end": (b"\x80\x02}", "damaged"),
    "two values": (b"\x80\x02}}.", "does not end with one value"),
    "taking from nothing": (b"\x80\x02\x86.", "damaged"),
    "an open mark": (b"\x80\x02(}.", "does not end with one value"),
    "a number that nothing has": (b"\x80\x02h\x07.", "damaged"),
    "lists in lists": (deep(b"]"), "does not end"),
    "tuples in tuples": (deep(b"\x85"), "does not hold a state dict"),
    "steps without end": (deep(b"N", 1_100_000), "more than 1000000 steps"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "does not hold a state dict"),
    "a state dict in itself": (b"\x80\x02}q\x00" + text("state_dict") + b"h\x00s.", "does not hold a state dict"),
    "a module in itself": (b"\x80\x02c__torch__\nA\n)\x81q\x00}" + text("a") + b"h\x00sb.", "nested without end"),
    "keys of one hash": (b"\x80\x02}(" + number(2**61 - 1) + b"Nu.", "damaged"),
    "a module without tensors": (b"\x80\x02c__torch__\nA\n)\x81}b.", "no tensors"),
}  # fmt: skip


@pytest.mark.parametrize("program, part", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes, part: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = four(tmp_path / "a.pt", program)
    refused(read(path), path, part)
    refused(lambda: convert_openai(path, tmp_path / "out"), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_modules_that_are_shared_do_not_multiply(tmp_path: Path) -> None:
    """Each module has the one before it twice: 2**40 tensors."""
    module = b"c__torch__\nA\n)\x81}("
    parts = module + text("w") + stored((2, 2), (2, 1)) + b"ubq\x00"
    for level in range(40):
        again = b"h" + bytes([level])
        parts += module + text("a") + again + text("b") + again + b"ubq" + bytes([level + 1])
    path = four(tmp_path / "a.pt", b"\x80\x02" + module + text("parts") + b"(" + parts + b"t" + text("a") + b"h\x28ub.")
    refused(read(path), path, "nested without end")


def test_one_record_behind_many_tensors_is_refused(tmp_path: Path) -> None:
    parts = [text(f"w{i}") + stored((64, 64), (64, 1), count=4096) for i in range(1000)]
    path = pack(tmp_path / "a.pt", state(*parts), r0=bytes(4 * 4096))
    refused(read(path), path, "its tensors have 16384000 bytes")


def good(path: Path) -> Path:
    torch.save({"w": torch.zeros(1000), "v": torch.ones(3)}, path)
    return path


def repacked(path: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> Path:
    """The good archive with each record written anew."""
    source = zipfile.ZipFile(io.BytesIO(good(path).read_bytes()))
    with zipfile.ZipFile(path, "w") as file:
        for entry in source.infolist():
            change(file, entry, source.read(entry))
    return path


def bomb(file: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    packed = entry.filename.endswith("data/0")
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    file.writestr(entry.filename, content if not packed else bytes(100 * 2**20), kind)


def twice(file: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    file.writestr(entry.filename, content)
    if entry.filename.endswith("data.pkl"):
        file.writestr(entry.filename.upper().replace("A/", "a/", 1), content)


def outside(file: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    file.writestr(entry.filename if "data/1" not in entry.filename else "../../etc/x", content)


def elsewhere(file: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    file.writestr(entry.filename if "data/1" not in entry.filename else "b/data/1", content)


def other_order(file: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    file.writestr(entry.filename, content if not entry.filename.endswith("byteorder") else b"big")


LAYOUTS = {
    "compressed": (bomb, "is compressed"), "names twice": (twice, "is there twice"),
    "outside": (outside, "not in the archive's folder"), "two folders": (elsewhere, "in 2 folders"),
    "another order of bytes": (other_order, "another order of bytes"),
}  # fmt: skip


@pytest.mark.parametrize("change, part", LAYOUTS.values(), ids=LAYOUTS)
def test_other_layouts_than_torchs_are_refused(tmp_path: Path, change: Any, part: str) -> None:
    path = repacked(tmp_path / "a.pt", change)
    refused(read(path), path, part)
    refused(lambda: load_backbone("ViT-B-32", path, quick_gelu=False), path, part)


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    path = good(tmp_path / "a.pt")
    content = bytearray(path.read_bytes())
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    for entry in entries[1:]:
        content[entry + 42 : entry + 46] = content[entries[0] + 42 : entries[0] + 46]
    path.write_bytes(content)
    refused(read(path), path, "inside another")


def test_files_that_are_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    whole = good(path).read_bytes()
    old = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, old, _use_new_zipfile_serialization=False)
    files = {
        b"": "it is empty",
        b"no weights here": "no zip file",
        old.getvalue(): "before 1.6",
        whole[:-1]: "cut off",
        whole[: len(whole) // 2]: "cut off",
        whole + b"more": "goes on",
        b"PK\x03\x04": "cut off",
        b"x" + whole: "no zip file",
        pickle.dumps(Calls(os.system, "touch RAN")): "cannot be read without running it",
        whole[:4] + whole: "two ends",
    }
    for content, part in files.items():
        path.write_bytes(content)
        refused(read(path), path, part)
    good(path)
    monkeypatch.setattr(archive_module, "MAX_DIRECTORY", 100)
    refused(read(path), path, "100 at most")
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "absent.pt", FIX)


def test_flipped_bytes_never_change_a_number_silently(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.pt", random.Random(0)
    torch.save(tensors(), path)
    whole, expected = path.read_bytes(), read_state_dict(path, FIX)
    opened = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 4))):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content[: draw.choice((len(content), len(content), draw.randrange(len(content))))])
        try:
            found = read_state_dict(path, FIX)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            continue
        opened += 1  # in padding, and in what nothing reads
        assert found.keys() == expected.keys() and all(torch.equal(found[k], v) for k, v in expected.items())
    assert 0 < opened < 400
