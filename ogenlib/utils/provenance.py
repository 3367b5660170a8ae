"""Where and when a result came about: versions of libraries, the revision of the source, the time."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions() -> dict[str, str]:
    """Of the libraries that decide results."""
    installed = {"python": platform.python_version()}
    for package in ("ogenlib", "torch", "torchvision", "open_clip_torch"):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed as a package"
    return installed


def git_revision() -> str | None:
    """Short revision of the working copy this package is imported from, "+changes" if edited; None elsewhere."""
    folder = Path(__file__).resolve().parent
    try:
        top = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True)
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True)
        if top.returncode or tracked.returncode:
            return None
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return top.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def now() -> str:
    """UTC time to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
