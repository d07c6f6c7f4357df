"""The command line as the tests run it: in this process, or in a new one."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from nlnet.apps.cli.main import main


@dataclass
class Result:
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def nlnet(*arguments: object) -> Result:
    """Run a command in this process. An error that the command line does not report as one line is raised here."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["nlnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def nlnet_process(*arguments: object, before: str = "", **environment: str) -> Result:
    """Run a command in a new Python process, after the statements `before`."""
    code = (
        f"import sys\nsys.argv = {['nlnet', *map(str, arguments)]!r}\n{before}\n"
        "from nlnet.apps.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )
    return Result(done.returncode, done.stdout, done.stderr)
