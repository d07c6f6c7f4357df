"""Provenance of a result: commit, machine and versions."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[2]


def provenance() -> dict[str, str]:
    """Return commit, machine, and versions of Python, torch and nlnet of this process.

    The commit is "unknown" for an installation without its git repository, the version for one without metadata.
    """
    return {
        "commit": commit(PACKAGE),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nlnet": _version(),
    }


def machine() -> str:
    """Return the processor architecture, number of cores, processor name and GPUs of this machine, joined by commas."""
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
    """Return the git commit of the repository that tracks `folder`, followed by " and changes" if files differ from it.

    Return "unknown" without git or repository.
    """
    # a package installed inside another project's repository must not be given that project's commit
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    head = None if tracked is None else _git(folder, "rev-parse", "HEAD")
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
    """Return the output of a git command; None if git or the repository is missing, or after 20 seconds."""
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
