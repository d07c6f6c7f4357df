"""The package as `import nlnet` shows it: the list of public names, their help, examples and types, and the version."""

import inspect
import pydoc
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from support.runs import save_run

import nlnet

ROOT = Path(__file__).parents[1]
API = runpy.run_path(str(ROOT / "docs" / "make_api.py"))
CALLABLES = [name for name in nlnet.__all__ if name not in ("NlnetError", "__version__")]


def test_the_docstring_lists_the_public_names_with_a_line_each():
    listed = dict(re.findall(r"^    (\w+) {2,}(\S.*)$", inspect.getdoc(nlnet), re.MULTILINE))
    assert list(listed) == nlnet.__all__
    for name in nlnet.__all__:
        assert len(listed[name].split()) >= 5, name


def test_help_begins_with_what_the_package_is_for():
    text = pydoc.plaintext.document(nlnet)
    name, first, *_ = [line.strip() for line in text.splitlines() if line.strip()]
    assert name == "NAME"
    assert first.startswith("nlnet - Non-local neural networks (Wang, Girshick, Gupta, He, CVPR 2018)")
    assert "Put non-local blocks into your own network" in text


def test_the_example_of_the_package_runs():
    (code,) = [block for block in examples(inspect.getdoc(nlnet)) if "import" in block]
    names = {}
    exec(code, names)
    assert names["y"].shape == (2, 64, 4, 14, 14)


def examples(text: str) -> list[str]:
    """The indented paragraphs of a docstring that are Python; adjacent ones belong together."""
    return re.findall(r"^```python\n(.*?)^```$", API["prose"](text), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", CALLABLES)
def test_the_example_of_a_public_name_runs(name, tmp_path, monkeypatch, color_videos):
    """In a folder with a run and a video, after the imports that the example of the package shows."""
    code = [block for block in examples(inspect.getdoc(getattr(nlnet, name))) if f"{name}(" in block]
    assert code, f"nlnet.{name} has no example"
    if name == "load":
        save_run(tmp_path / "runs" / "mine")
        (tmp_path / "clip.mp4").write_bytes((color_videos / "val" / "red" / "0.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    names = {"nlnet": nlnet, "torch": torch, name: getattr(nlnet, name)}
    for block in code:
        exec(block, names)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_name_says_what_it_does_first(name):
    first = inspect.getdoc(getattr(nlnet, name)).splitlines()[0]
    assert first.endswith((".", ":")) or ";" in first or "," in first
    assert len(first) <= 120


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_load_without_the_video_packages_names_the_command_that_installs_them():
    """Blocked here, since the tests have them; help() still works."""
    said = python(
        "import sys, pydoc; sys.modules['av'] = None; import nlnet\n"
        "assert 'insert_nonlocal' in pydoc.plaintext.document(nlnet)\n"
        "try: nlnet.load('runs/mine')\n"
        "except nlnet.NlnetError as error: print(type(error).__name__, error)"
    )
    assert said.startswith("MissingPackageError nlnet.load: the package 'av' is not installed")
    assert "pip install 'nlnet[video]'" in said


def test_a_mistake_of_ours_in_an_import_is_not_taken_for_a_missing_package():
    said = python(
        "import sys; sys.modules['nlnet.apps.plots'] = None; import nlnet\n"
        "try: nlnet.load\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert said.strip() == "nlnet.apps.plots"


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "nlnet.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", nlnet.__version__)
    # setuptools reads a literal from the source and else imports the package
    assert f'__version__ = "{nlnet.__version__}"\n' in (ROOT / "nlnet" / "__init__.py").read_text()


def test_the_types_are_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["nlnet"]
    assert (ROOT / "nlnet" / "py.typed").is_file()


def test_a_users_script_is_type_checked(tmp_path):
    """torch and jaxtyping are skipped, as half a minute of reading them would add nothing here."""
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n[mypy-jaxtyping.*]\nfollow_imports = skip\n"
        "[mypy-nlnet.*]\nignore_errors = True\n"
    )
    (tmp_path / "right.py").write_text(
        "import nlnet\n"
        'block: nlnet.NonLocalBlock = nlnet.NonLocalBlock(64, pairwise="dot_product")\n'
        'score: float = nlnet.load("runs/mine").predict("clip.mp4").score\n'
        'labels = [p.label for p in nlnet.load("runs/mine").predict(["a.mp4", "b.mp4"])]\n'
    )
    (tmp_path / "wrong.py").write_text(
        "import nlnet\n"
        "nlnet.NonLocalBlock(64, pairwse=1)\n"
        'nlnet.insert_nonlocal(None, "layer3", groups="two")\n'
        'nlnet.load("runs/mine").predict("clip.mp4", errors="skip").score\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "right.py", "wrong.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 3, done.stdout + done.stderr
    assert 'wrong.py:2: error: Unexpected keyword argument "pairwse" for "NonLocalBlock"' in errors[0]
    assert (
        'wrong.py:3: error: Argument "groups" to "insert_nonlocal" has incompatible type "str"' in errors[1]
    )
    assert 'wrong.py:4: error: Item "None" of "Prediction | None" has no attribute "score"' in errors[2]


def test_the_reference_is_that_of_the_docstrings():
    """In a process without the shape checker, which wraps the functions."""
    code = f"import runpy; print(runpy.run_path({str(ROOT / 'docs' / 'make_api.py')!r})['page'](), end='')"
    assert (ROOT / "docs" / "api.md").read_text() == python(code), "python docs/make_api.py"


def test_the_reference_has_a_section_for_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in nlnet.__all__ if f"\n### {name}\n" not in page] == []
