"""onnxruntime's telemetry is off in an export: no device id, no queue of events, and no attempt to connect.

The runtime is C++, so nothing that Python can patch sees its connections. It does obey ``https_proxy``: a listener on
this machine stands in for the network, and whoever wants to send something knocks there first. A second process, in
which telemetry is asked for, shows that it knocks and writes its files; without that the test would prove nothing.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ogenlib.export.onnx import load_onnxruntime

NEEDED = ("onnx", "onnxruntime", "onnxscript")
PATIENCE = 60.0  # seconds for the first upload; onnxruntime 1.32 takes about ten
pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in NEEDED), reason="extra onnx is not installed"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the files' places and /proc are Linux's"),
]
EXPORT = """
import os, sys
import open_clip, torch
import ogenlib as og
from ogenlib.towers import Backbone
vision = {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
text = {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}
clip = Backbone(open_clip.CLIP(16, vision, text), open_clip.SimpleTokenizer(context_length=16), name="small")
og.export_onnx(og.hosts.build("zero_shot", clip, ["dog", "cat"]), sys.argv[1])
"""
IMPORT = "from ogenlib.export.onnx import load_onnxruntime; load_onnxruntime()\n"
WAIT = """
import os
print(sorted(os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")), flush=True)
input()
"""


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@contextmanager
def started(code: str, home: Path, proxy: socket.socket, **more: str) -> Iterator[str]:
    """A process with a home of its own that has run `code` and lives on; yields the files it has open."""
    address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    proxies = {name: address for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_")) and k.lower() != "no_proxy"}
    process = subprocess.Popen(
        [sys.executable, "-c", code + WAIT, str(home / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**kept, **proxies, "HOME": str(home), **more},
    )
    assert process.stdin and process.stdout
    try:
        yield process.stdout.readline()
    finally:
        process.communicate("\n")
        assert process.returncode == 0


def knocked(server: socket.socket, seconds: float) -> bool:
    server.settimeout(seconds)
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


def theirs(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and "onnxruntime" in str(path.relative_to(home))]


@pytest.mark.slow
def test_an_export_writes_no_id_and_connects_nowhere(tmp_path: Path) -> None:
    quiet, loud = tmp_path / "quiet", tmp_path / "loud"
    quiet.mkdir()
    loud.mkdir()
    with listener() as silence, listener() as noise, started(EXPORT, quiet, silence) as opened:
        assert (quiet / "out" / "classifier.onnx").is_file()
        assert "pipe:" in opened  # the list is one
        assert "socket:" not in opened and "onnxruntime.db" not in opened
        with started(IMPORT, loud, noise, ORT_DISABLE_TELEMETRY="0"):
            sent = knocked(noise, PATIENCE)
        assert not knocked(silence, 0.01)  # it has been there for longer
    assert theirs(quiet) == []
    if not sent or not theirs(loud):
        pytest.skip("this onnxruntime has no telemetry, so there is nothing to switch off")


def test_who_asks_for_telemetry_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    onnxruntime = load_onnxruntime()
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls.append("off"))
    for value, expected, off in ((None, "1", 1), ("", "1", 2), ("1", "1", 3), ("0", "0", 3)):
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
        if value is not None:
            monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
        assert load_onnxruntime() is onnxruntime
        assert os.environ["ORT_DISABLE_TELEMETRY"] == expected and len(calls) == off
