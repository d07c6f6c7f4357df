"""The code in the documents runs as written, and the files and names that they point to exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import save_run

ROOT = Path(__file__).parents[1]
EXTENDING = ROOT / "docs" / "extending.md"


def python_blocks(document: Path) -> list[str]:
    """The ```python blocks of a Markdown file, each padded so that its lines have the file's line numbers."""
    text = document.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in found]


def test_the_readmes_python_runs(tmp_path, monkeypatch, color_videos):
    """All blocks in one namespace, which is empty at first, in a folder with a trained run and a video."""
    large = ("data.crop=128", "data.scales=[128, 160]", "test.crop=128", "test.short_side=128")
    save_run(tmp_path / "runs" / "mine", *large)
    (tmp_path / "clip.mp4").write_bytes((color_videos / "val" / "red" / "0.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks, names = python_blocks(ROOT / "README.md"), {"__name__": "__main__"}
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_the_extensions_run(tmp_path):
    """Each section's blocks in a namespace of its own; in another process, since they add to the tables of this one."""
    sections = re.split(r"^## ", EXTENDING.read_text(), flags=re.MULTILINE)[1:]
    code = [
        "\n".join(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        for section in sections
    ]
    assert sum(map(bool, code)) == 4
    runner = (
        "import sys\nfor section in sys.stdin.read().split('\\0'):\n  exec(section, {'__name__': '__main__'})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", runner],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input="\0".join(code),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


ROWS = re.findall(r"^\| ([^|]+) \| `([\w./]+)` \|(?: `(\w+)` \|)?", EXTENDING.read_text(), re.MULTILINE)


def test_ten_questions_are_answered():
    assert len(ROWS) == 10


@pytest.mark.parametrize(("question", "path", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_question_asks_for_is_there(question, path, name):
    text = (ROOT / path).read_text()
    if name:
        # a function, class, method or constant of Python, or a function or constant of JavaScript
        defined = rf"^\s*(?:export )?(?:def |class |function |const )?{name}\b(?:\(|:| =)"
        assert re.search(defined, text, re.MULTILINE), f"{path} does not define {name}"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/extending.md", "docs/api.md"])
def test_links_lead_to_files(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"
