"""Create empty files and annotation files for the tests of the readers."""

from pathlib import Path


def touch(folder: Path, *names: str) -> Path:
    """Create empty files, with their folders, below `folder`, and return it."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(path: Path, text: str) -> Path:
    """Write a text file, with its folders, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
