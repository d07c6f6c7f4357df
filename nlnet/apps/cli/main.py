"""The entry point of the `nlnet` command: run a command and end the process with its exit code."""

import os
import sys
from typing import NoReturn

from nlnet.apps.cli.failures import message_of, optional_packages

INTERRUPTED = 130
"""A shell's exit code for Ctrl-C: 128 plus the number of SIGINT."""


def main() -> None:
    """Run the command in `sys.argv`, print its errors, and end the process.

    Exit codes: 0 done; 1 an error, or a check that failed; 2 wrong usage; 130 interrupted by Ctrl-C or SIGTERM.

    What a user can mend is printed as one line (`nlnet.apps.cli.failures`); any other error is a bug and shows its
    traceback. With the environment variable NLNET_TRACEBACK=1 every error shows its traceback.
    """
    try:
        with optional_packages():
            # here, because typer itself is an optional package
            from nlnet.apps.cli.commands import run_command

            code = run_command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # `nlnet … | head`: Python would write the rest at exit and complain about the closed pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1  # as typer and rich end where they meet the closed pipe first
    except Exception as error:
        message = message_of(error)
        if message is None or os.environ.get("NLNET_TRACEBACK"):
            raise
        if message:  # empty where typer has printed a help page instead
            print(f"nlnet: {message}", file=sys.stderr)
        code = getattr(error, "exit_code", 1)
    if code == INTERRUPTED:
        print("nlnet: interrupted", file=sys.stderr)
    end_process(code)


def end_process(code: int) -> NoReturn:
    """End this process with an exit code; under torchrun at once, without Python's clean-up.

    With gloo that clean-up aborts a process now and then (torch 2.13: "terminate called without an active exception"),
    which torchrun then reports as a failed run. The results are on disk by then.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
