"""Where a number comes from: commit, machine, versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

import nlnet.apps


def passport() -> dict[str, str]:
    """Of this process; "unknown" is the commit of an installation without its repository."""
    return {
        "commit": commit(Path(nlnet.apps.__file__).parent),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nlnet": version("nlnet"),
    }


def machine() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
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
    """The commit of the repository around `folder`, with "and changes" where files differ from it."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return head + (" and changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
