"""Publish the numbers of a demo: docs/results.json, its pictures, and the two outputs that README.md shows.

    make demo && .venv/bin/python docs/publish.py runs/demo     # a new demo's numbers
    .venv/bin/python docs/publish.py                            # README.md again, from docs/results.json

Every number of README.md, docs/paper.md and their captions comes from docs/results.json, docs/ablations.json or
benchmarks/results; tests/test_numbers.py holds them equal.
"""

import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from nlnet.apps.demo import command as demo
from nlnet.engine.runs.directory import RunDir

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE.parent / "README.md"
PICTURES = ("attention.png", "curves.png")


def take_demo(folder: Path) -> None:
    """Put a demo's report into docs/results.json, and its pictures beside it."""
    results = json.loads(RESULTS.read_text())
    last = RunDir(folder / "nonlocal-0").sessions()[-1]  # the commit and machine that trained it
    results["demo"] = json.loads((folder / "report.json").read_text()) | {"provenance": last}
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    for name in PICTURES:
        shutil.copyfile(folder / name, HERE / name)


def readme(text: str, results: dict[str, Any]) -> str:
    """README.md with both of its outputs made anew."""
    text = between(text, "demo", demo_output(results["demo"]))
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None, "README.md has no Python example"
    return between(text, "insertion", example_output(example[1]))


def between(text: str, mark: str, output: str) -> str:
    """`text` with the code block between two marks replaced."""
    found = re.compile(rf"(<!-- {mark} -->\n)```\n.*?```\n(<!-- /{mark} -->)", re.DOTALL)
    assert len(found.findall(text)) == 1, f"README.md has no block marked {mark!r}"
    return found.sub(lambda block: f"{block[1]}```\n{output.rstrip()}\n```\n{block[2]}", text)


def demo_output(result: dict[str, Any]) -> str:
    """What `nlnet demo` prints at its end, in 80 columns."""
    screen = Console(file=io.StringIO(), width=80)
    own, demo.OUT = demo.OUT, screen
    try:
        demo.show(result, Path("runs/demo"))
    finally:
        demo.OUT = own
    return "\n".join(line.rstrip() for line in screen.file.getvalue().splitlines())  # type: ignore[attr-defined]


def example_output(code: str) -> str:
    """What README's first example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take_demo(Path(sys.argv[1]))
    README.write_text(readme(README.read_text(), json.loads(RESULTS.read_text())))
