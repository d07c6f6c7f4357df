"""Where a number comes from: commit, machine, versions."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[2]


def passport() -> dict[str, str]:
    """Of this process; "unknown" is the commit, or version, of an installation without its repository, or metadata."""
    return {
        "commit": commit(PACKAGE),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nlnet": _version(),
    }


def machine() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(errors="replace").splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return ", ".join(
        [
            f"{platform.machine()}, {os.cpu_count()} cores",
            names[0] if names else platform.processor(),
            *devices,
        ]
    )


def commit(folder: Path) -> str:
    """The commit of the repository that `folder`'s `__init__.py` belongs to, with "and changes" where files differ.

    A package installed inside somebody else's repository is not of that repository: "unknown".
    """
    ours = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    head = None if ours is None else _git(folder, "rev-parse", "HEAD")
    if head is None:
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return head + (" and changes" if changed else "")


def _version() -> str:
    try:
        return version("nlnet")
    except PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository, or no answer in 20 seconds."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
