"""Files that ask for more memory than they have, read in a process of their own."""

import json
import os
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]

TOWER = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(60))


def measured(command, directory):
    """What such a process printed before its end, or before a minute was over."""
    try:
        done = subprocess.run(
            [*command, directory],
            cwd=TESTS / "weights",
            env=os.environ | {"PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        printed = done.stdout
    except subprocess.TimeoutExpired as error:
        printed = (error.stdout or b"").decode()
    return {name: (outcome, grown) for name, outcome, grown in map(json.loads, printed.splitlines())}
