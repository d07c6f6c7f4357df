"""Malicious weight files, read in a process of their own."""

import json
import os
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]

# the opcodes of pairs nested sixty deep, each holding the pair below twice: 2^60 steps to hash
NESTED_PAIRS = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(60))


def measured(command, directory):
    """Name → (outcome, growth of memory in bytes), as the process `command` prints it within a minute."""
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
