"""What the command line prints for an error: one line for what a user can mend, the traceback for a bug."""

import errno
import os
import signal
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from support.command_line import nlnet_process
from torch.utils.data import DataLoader, Dataset

from nlnet import errors
from nlnet.apps.cli.failures import EXTRAS, message_of, optional_packages
from nlnet.errors import MissingPackageError, NlnetError, RunError


def report_raises(expression: str) -> str:
    """Statements after which `nlnet report` raises that; a stand-in for its module, so torch is not needed."""
    return f"""
import builtins, types
from nlnet.errors import *
def run_report(*arguments, **options):
    raise {expression}
sys.modules["nlnet.apps.report.command"] = types.SimpleNamespace(run_report=run_report)
"""


@pytest.mark.parametrize(
    "error",
    [
        "ValueError('a wrong shape')",
        "KeyError('conv1')",
        "TypeError('no such argument')",
        "ImportError('no name folded')",
        "RuntimeError('mat1 and mat2 shapes cannot be multiplied')",
        "EOFError('ran out of input')",
        "OSError('no errno: not from the system')",
    ],
)
def test_a_bug_shows_its_traceback(error):
    done = nlnet_process("report", "run", before=report_raises(error))
    assert done.returncode == 1
    assert done.stderr.lstrip().startswith("Traceback")
    assert "in run_report" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(error.split("(")[0])
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("RunError('run: not a run directory')", "nlnet: run: not a run directory"),
        ("NlnetError('data: expected a folder')", "nlnet: data: expected a folder"),
        ("FileNotFoundError(2, 'No such file or directory', 'a.mp4')", "nlnet: a.mp4: No such file or directory"),
        ("MemoryError()", "nlnet: not enough memory"),
    ],
)  # fmt: skip
def test_what_a_user_can_mend_is_one_line(error, line):
    done = nlnet_process("report", "run", before=report_raises(error))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line + "\n")


def test_the_environment_variable_shows_every_traceback():
    done = nlnet_process("report", "run", before=report_raises("RunError('not a run')"), NLNET_TRACEBACK="1")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RunError: not a run\n")


def test_a_missing_option_is_a_usage_error():
    done = nlnet_process("report")
    assert (done.returncode, done.stderr.lower()) == (2, "nlnet: missing argument 'run'.\n")


def test_a_command_without_its_arguments_prints_its_help_and_nothing_else():
    done = nlnet_process("data")
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: nlnet data" in done.stdout


def test_ctrl_c():
    done = nlnet_process("report", "run", before=report_raises("KeyboardInterrupt"))
    assert (done.returncode, done.stderr.strip()) == (130, "nlnet: interrupted")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_met_without_a_word(unbuffered):
    """`nlnet … | head`: the rest of the output is dropped, and Python does not complain at exit."""
    before = "import os\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)"
    done = nlnet_process("--version", before=before, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, "")


# ---------------------------------------------------------------- optional packages


def without(package: str) -> str:
    """Statements after which that package is not installed."""
    return f"""
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
"""


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("uvicorn", ("explore", "run"), "explore"),
        ("typer", ("--help",), "video"),
        ("yaml", ("train", "x.yaml"), "video"),
        ("av", ("doctor", "--recipe", "x"), "video"),
    ],
)
def test_a_missing_optional_package_is_one_line_with_the_command_that_installs_it(package, command, extra):
    done = nlnet_process(*command, before=without(package))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert package in line
    assert line.endswith(f"pip install 'nlnet[{extra}]'")


@pytest.mark.parametrize(
    "statement",
    [
        "from nlnet.errors import folded",
        "import nlnet.apps.cli.nothing",
        "import fastapi.nothing",
        "import nothing_at_all",
    ],
)
def test_an_import_error_of_our_own_shows_its_traceback(statement):
    before = f"""
import builtins, types
class Verb(types.ModuleType):
    def __getattr__(self, name):
        {statement}
sys.modules["nlnet.apps.report.command"] = Verb("command")
"""
    done = nlnet_process("report", "run", before=before)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert statement in done.stderr or "in __getattr__" in done.stderr


def test_an_import_error_of_an_optional_package_keeps_its_cause():
    said = r"the package 'av' is not installed; install it with: pip install 'nlnet\[video\]'"
    with pytest.raises(MissingPackageError, match=said) as info, optional_packages():
        raise ModuleNotFoundError("No module named 'av'", name="av")
    assert isinstance(info.value.__cause__, ModuleNotFoundError)


def test_the_extras_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    distributions = packages_distributions()
    for extra, names in EXTRAS.items():
        required = {
            requirement.partition(">=")[0]
            for requirement in project["optional-dependencies"][extra]
            if not requirement.startswith("nlnet")
        }
        brought_along = {"starlette"}  # comes with fastapi, and is imported by name
        assert {distributions[name][0].lower() for name in names} - brought_along == required


# ---------------------------------------------------------------- the operating system and memory


def test_a_refusal_of_the_system_names_the_file(tmp_path):
    with pytest.raises(OSError) as missing:  # noqa: PT011
        (tmp_path / "gone").open()
    assert message_of(missing.value) == f"{tmp_path / 'gone'}: No such file or directory"
    with pytest.raises(OSError) as moved:  # noqa: PT011
        os.rename(tmp_path / "a", tmp_path / "b")
    assert message_of(moved.value) == f"{tmp_path / 'a'} → {tmp_path / 'b'}: No such file or directory"
    assert message_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "No space left on device"
    assert message_of(OSError("a bug")) is None


def test_torch_without_memory():
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(10**15)
    assert "not enough memory: " in message_of(cpu.value)
    assert "4000000000000000 bytes" in message_of(cpu.value)
    gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has …")
    assert message_of(gpu) == "not enough memory: CUDA out of memory. Tried to allocate 20.00 GiB."
    assert message_of(MemoryError()) == "not enough memory"
    assert message_of(RuntimeError("shape '[2, 3]' is invalid for input of size 5")) is None


class Ending(Dataset):
    """Its worker process ends by that signal."""

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGKILL, "not enough memory: DataLoader worker (pid "),
        (signal.SIGBUS, "not enough memory: DataLoader worker (pid "),
        (signal.SIGSEGV, None),
    ],
)
def test_a_loader_process_that_the_system_ended(number, line):
    """Linux kills a process to free memory, and /dev/shm that is full is a bus error; a segmentation fault is a bug."""
    with pytest.raises(RuntimeError) as ended:
        list(DataLoader(Ending(number), num_workers=1))
    said = message_of(ended.value)
    assert said is None if line is None else said.startswith(line)


def test_an_error_in_a_loader_process_is_not_about_memory():
    error = RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback …")
    assert message_of(error) is None


def test_every_class_of_ours_is_one_line():
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NlnetError)
    ]
    assert {NlnetError, RunError} < set(classes)
    assert all(message_of(kind("what is wrong")) == "what is wrong" for kind in classes)
