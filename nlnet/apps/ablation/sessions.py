"""The sessions that a study was made in: each started the command anew, on its own commit and machine perhaps.

`sessions.json` beside the runs has one entry a session, written again whenever a run ends, so that a killed session's
entry says what it did up to then.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nlnet.engine.runs.atomic_write import write_json
from nlnet.engine.runs.provenance import passport


class Session:
    """This one, from now on. It enters the file with its first run; one that only writes tables does not."""

    def __init__(self, out: Path, command: str) -> None:
        self.path = out / "sessions.json"
        self.before = read_sessions(out)
        self.began = time.perf_counter()
        self.entry: dict[str, Any] = {
            "command": command,
            "passport": passport(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "runs": [],
        }

    def ended(self, name: str) -> None:
        """A run ended."""
        self.entry["runs"].append(name)
        self.save()

    def save(self) -> None:
        self.entry["seconds"] = round(time.perf_counter() - self.began, 1)
        if self.entry["runs"]:
            write_json(self.path, [*self.before, self.entry])


def read_sessions(out: Path) -> list[dict[str, Any]]:
    """In order; none where no run has ended yet."""
    path = out / "sessions.json"
    return json.loads(path.read_text()) if path.exists() else []


def makers(sessions: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> list[dict[str, Any]]:
    """The passports under which `runs` were made, each once, with how many; "unknown" for runs of no session."""
    found: list[dict[str, Any]] = []
    left = set(runs)
    for session in sessions:
        mine = left.intersection(session["runs"])
        left -= mine
        same = next((maker for maker in found if maker["passport"] == session["passport"]), None)
        if same is not None:
            same["runs"] += len(mine)
        elif mine:
            found.append({"passport": session["passport"], "runs": len(mine)})
    if left:
        found.append({"passport": None, "runs": len(left)})
    return found
