"""Help pages, `--version` and shell completion."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer
from support.command_line import nlnet, nlnet_process

import nlnet as package
from nlnet.apps.ablation.rows import TABLES
from nlnet.apps.bench.command import DTYPES, GROUPS
from nlnet.apps.cli.commands import COMMANDS, app
from nlnet.data.diagnostic.task import Task
from nlnet.data.protocols import PROTOCOLS
from nlnet.engine.config import Config
from nlnet.models.resnet import TIMINGS
from nlnet.weights.projects import PROJECTS
from nlnet.weights.write import FORMATS

PAGES = [(name,) for name in COMMANDS] + [("data", "make"), ("data", "check")]


def parameter_help(command: str, parameter: str) -> str:
    """The help text of an argument or option; of a command itself if `parameter` is empty."""
    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    if not parameter:
        return found.help
    return next(p.help for p in found.params if p.name == parameter)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"[\w]+", text))


@pytest.mark.parametrize(
    ("command", "parameter", "names", "others"),
    [
        ("models", "variant", TIMINGS, ()),
        ("convert", "to", FORMATS, ()),
        ("convert", "source", ["slowfast_pkl"], PROJECTS.keys() - {"slowfast_pkl"}),
        ("bench", "groups", GROUPS, ()),
        ("bench", "precision", DTYPES, ()),
        ("data make", "task", get_args(Task), ()),
        ("test", "", PROTOCOLS, ()),
    ],
)
def test_names_in_a_help_text_are_those_of_their_table(command, parameter, names, others):
    text = names_in(parameter_help(command, parameter))
    assert set(names) <= text
    assert not set(others) & text


def test_no_name_in_a_help_text_is_unknown():
    """Where a help text is a list, nothing but the table's names stands in it."""
    plain = {"the", "clip", "as", "frames", "x", "stride", "or", "and", "what", "to", "measure", "all"}
    words = {name: {w.lower() for w in names_in(parameter_help(*name))} for name in (
        ("models", "variant"), ("convert", "to"), ("bench", "groups"))}  # fmt: skip
    assert words["models", "variant"] - plain == set(TIMINGS)
    assert words["convert", "to"] - plain == set(FORMATS)
    assert words["bench", "groups"] - plain == set(GROUPS)
    protocols = parameter_help("test", "").partition("Names:")[2]
    assert re.findall(r"(\w+)(?: \([^)]*\))?[,.]", protocols) == list(PROTOCOLS)


def test_the_tables_of_the_study():
    text = parameter_help("ablate", "tables")
    first, last = re.search(r"(2\w) to (2\w)", text).groups()
    lettered = [name for name in TABLES if re.fullmatch(r"2\w", name)]
    assert (first, last) == (lettered[0], lettered[-1])
    assert lettered == [f"2{letter}" for letter in "abcdefg"]
    assert set(TABLES) - set(lettered) <= names_in(text)


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_every_parameter_has_a_help_text_and_every_command_a_first_line(page):
    command = typer.main.get_command(app)
    for name in page:
        command = command.commands[name]
    assert all(parameter.help for parameter in command.params if parameter.name != "help")
    assert len(command.help.splitlines()[0]) <= 110


@pytest.mark.parametrize("page", [(), *PAGES], ids=lambda page: " ".join(page) or "nlnet")
def test_a_help_page_fits_eighty_columns(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = nlnet(*page, "--help")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_defaults_that_depend_on_other_arguments_are_shown(monkeypatch):
    """By `show_default`: text in square brackets would be read as markup and disappear from the page."""
    monkeypatch.setenv("COLUMNS", "80")
    assert "[default: (runs/RECIPE)]" in nlnet("train", "--help").stdout
    assert "[default: (RUN/report)]" in nlnet("report", "--help").stdout
    assert "[default: 32x2]" in nlnet("models", "--help").stdout


def test_models_and_configurations_have_the_same_default_variant():
    """The clip of the paper's tables, 32 frames with stride 2."""
    (default,) = (
        p.default for p in typer.main.get_command(app).commands["models"].params if p.name == "variant"
    )
    assert default == Config().model.variant == "32x2"


def test_version():
    done = nlnet("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nlnet {package.__version__}\n", "")


def completions(words: str) -> list[str]:
    """What bash is offered for the last of these words. `nlnet` completes itself when these variables are set."""
    done = subprocess.run(
        [Path(sys.executable).with_name("nlnet")],
        env={
            "_NLNET_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_options():
    assert completions("nlnet tr") == ["train"]
    assert completions("nlnet data ") == ["make", "check"]
    assert completions("nlnet doctor --rec") == ["--recipe"]


def test_the_script_for_the_shell():
    done = nlnet_process(
        "--show-completion", "bash", before="", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert done.returncode == 0, done.stderr
    assert "_NLNET_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _nlnet_completion nlnet" in done.stdout


def test_completion_does_not_import_torch():
    code = "import sys; import nlnet.apps.cli.commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
