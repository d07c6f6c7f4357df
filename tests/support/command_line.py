"""The command line, run in this process."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from nlnet.apps.cli.main import main


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def nlnet(*arguments: object) -> Done:
    """Run the command in this process (its start, torch's import, is tested once below and in test_train.py)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["nlnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())
