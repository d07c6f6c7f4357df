"""Atomic writes: a file appears complete or not at all.

A file is written under a temporary name and then renamed, so that no reader sees half of it after a kill or on a full
disk. `remove_leftovers` deletes the temporary files of killed processes.
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
"""Temporary names that `write_atomically` gives to a run's files: `.resume.pt.k3_xq81z`."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary path beside `path`, flush the file to disk, and rename it to `path`.

    Raises:
        RunError: the file cannot be written; an earlier file at `path` is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # in the same folder: a rename is atomic inside one file system only
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunError(f"{path.parent}: cannot write there ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # before the rename: a power cut must not leave the new name on data that never reached the disk
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that their owner alone may read
        temporary.replace(path)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors wrap the error of a full disk
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise RunError(
            f"{path}: cannot write it ({reason}); the earlier file, if any, is unchanged"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, indented."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder. No process may be writing in it."""
    for path in folder.glob(".*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """The message of an error on one line of at most 200 characters; torch's messages have many lines."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
