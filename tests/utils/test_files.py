"""A file is whole under its name, or not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from ogenlib.utils import files
from ogenlib.utils.files import atomic_folder, atomic_write, check_writable


def test_writes_the_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary != target
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.txt"]


def test_an_error_keeps_the_old_file_and_cleans_up(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_write(tmp_path / ("n" * 200 + ".png")) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_write(tmp_path / "a.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_link_is_followed_not_replaced(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and real.read_text() == "new"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import os, runpy, signal, sys\n"
        "atomic_write = runpy.run_path(sys.argv[2])['atomic_write']\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target), files.__file__], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_whoever_writes(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.ones(1)}, temporary)
        with atomic_folder(tmp_path / "folder") as work:
            save_file({"a": torch.ones(1)}, work / "a.safetensors")
            (work / "a.json").write_text("{}")
    finally:
        os.umask(before)
    written = [tmp_path / "a.safetensors", *(tmp_path / "folder").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in written} == {mode}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


KILLED = """
import os, signal, sys
from ogenlib.utils.files import atomic_folder, atomic_write
with (atomic_write if sys.argv[1] == "file" else atomic_folder)(sys.argv[2]) as work:
    (work if sys.argv[1] == "file" else work / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_cleans_up_after_a_killed_one(tmp_path, kind):
    target = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", KILLED, kind, str(target)])
    (left,) = os.listdir(tmp_path)
    alive = left.replace(left.split("-")[2], str(os.getppid()))
    other = left.replace(".a", ".b", 1)
    for name in (alive, other):
        (tmp_path / name).mkdir() if kind == "folder" else (tmp_path / name).touch()
    if kind == "file":
        with atomic_write(target) as temporary:
            temporary.write_text("whole")
    else:
        with atomic_folder(target) as work:
            (work / "a").write_text("whole")
    # Those of a process that still runs and of another target stay.
    assert sorted(os.listdir(tmp_path)) == sorted(["a.txt", alive, other])
    for name in (alive, other):
        os.utime(tmp_path / name, (0, 0))
    target.unlink() if kind == "file" else shutil.rmtree(target)
    with atomic_write(target) if kind == "file" else atomic_folder(target) as work:
        (work if kind == "file" else work / "a").write_text("whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["a.txt", other])


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    check_writable(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot be written"):
            check_writable(place)
