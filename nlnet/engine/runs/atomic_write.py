"""Files that are there whole or not at all.

A file is written under another name and then renamed, so that a kill, a full disk or a second reader never meets
half of it. What a kill leaves of the other name, `sweep` takes away.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from nlnet.errors import RunError

TEMPORARY = re.compile(r"\..+\.(json|jsonl|pt|safetensors)\.[a-z0-9_]{8}")
"""`.resume.pt.k3_xq81z`: what `atomically` calls a run's files while it writes them."""


def atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary path beside `path`, flush it to disk, and rename it into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunError(f"{path.parent}: cannot write there ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap a full disk
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"{path}: cannot write it ({reason}); what was there before is unchanged") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text(text)

    atomically(path, write)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def sweep(folder: Path) -> None:
    """Delete what killed processes left half written in a folder. No process may be writing there."""
    for path in folder.glob(".*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
