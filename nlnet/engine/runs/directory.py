"""A run directory: all files that training writes and that the other commands read.

config.json       the configuration and the class names
provenance.json   commit, machine and versions of every session of training
metrics.jsonl     one JSON record a line: training, validation, block statistics, unreadable videos
missing.json      videos that the annotation files name and the disk lacks, if there are any
checkpoints/      last.safetensors and best.safetensors (weights to use), resume.pt (the training state)
lock              held by the process that trains in the directory
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nlnet.engine.config import Config, from_mapping
from nlnet.engine.runs.atomic_write import (
    one_line,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
)
from nlnet.engine.runs.checkpoint import Checkpoint, load_summary, save_checkpoint
from nlnet.engine.runs.lock import LockedError, exclusive, is_locked
from nlnet.engine.runs.provenance import provenance
from nlnet.errors import RunError

BLOCK_STATS = "block_stats"
"""Kind of the records of block statistics in metrics.jsonl."""
BLOCK_STATS_KINDS = (BLOCK_STATS, "vitals")
"""Every kind that such records have had: "vitals" in older runs."""
STATE_KEYS = {"config", "iteration", "model", "optimizer", "scaler", "transferred"}
"""Keys of every training state; newer ones also have "videos"."""


def block_stats_records(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of block statistics among records of metrics.jsonl, in order."""
    return [record for record in records if record.get("kind") in BLOCK_STATS_KINDS]


class RunDir:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.resume_path = self.checkpoints / "resume.pt"
        self.missing_path = path / "missing.json"
        self.provenance_path = path / "provenance.json"
        self.old_provenance_path = path / "passport.json"
        """What older versions called it; read where there is no provenance.json, never written."""
        self.lock_path = path / "lock"

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return (self.path / "config.json").exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory's lock inside the `with`; makes the directory.

        Raises:
            RunError: another process trains here, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            holding = exclusive(self.lock_path)
            holding.__enter__()
        except LockedError as error:
            raise RunError(
                f"{self.path}: another process trains in this run ({error}); wait until it ends, or choose "
                "another --out"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot write there ({error.strerror})") from None
        # entered by hand, so that an OSError of the caller's block is not taken for one of the lock
        try:
            yield
        finally:
            holding.__exit__(None, None, None)

    @property
    def busy(self) -> bool:
        """Whether a process trains here."""
        return is_locked(self.lock_path)

    def record_session(self, iteration: int) -> None:
        """Add a session that starts at `iteration` to provenance.json: commit, machine, versions, and the time (UTC).

        A run that has a passport.json alone gets a provenance.json with the old sessions as well.
        """
        entry = {
            "iteration": iteration,
            **provenance(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.provenance_path, [*self.sessions(), entry])

    def sessions(self) -> list[dict[str, Any]]:
        """Return the sessions of provenance.json in order; [] for a run without the file."""
        path = self.provenance_path if self.provenance_path.exists() else self.old_provenance_path
        try:
            entries = json.loads(path.read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot read it ({error})") from None
        if not isinstance(entries, list):
            raise RunError(f"{path}: cannot read it (expected a list of sessions)")
        return entries

    def require_unused(self) -> None:
        """Raise RunError if a run is already here."""
        if self.exists:
            raise RunError(
                f"{self.path}: a run is already here; continue it with --resume {self.path}, or choose another --out"
            )

    def create(
        self, config: Config, classes: tuple[str, ...], missing: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Start a new run: write config.json, and missing.json if videos are missing.

        Args:
            missing: for each annotation file, the videos that it names and the disk lacks.

        Raises:
            RunError: a run is already here.
        """
        self.require_unused()
        self.remove_leftovers()
        if missing:
            write_json(self.missing_path, missing)
        # last: with this file the directory counts as a run
        write_json(
            self.path / "config.json", {"config": config.model_dump(mode="json"), "classes": list(classes)}
        )

    def check_missing(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Raise RunError if other videos are missing than at the start of the run: the sample order would change."""
        before = json.loads(self.missing_path.read_text()) if self.missing_path.exists() else {}
        if before != missing:
            counts = [sum(len(paths) for paths in lists.values()) for lists in (before, missing)]
            raise RunError(
                f"{self.path}: the missing videos have changed since the run began (then {counts[0]}, now "
                f"{counts[1]}); a resumed run needs the same videos: "
                f"{self.missing_path} lists those that were missing then"
            )

    def read_config(self) -> tuple[Config, tuple[str, ...]]:
        """Return the run's configuration and class names."""
        path = self.path / "config.json"
        try:
            values = json.loads(path.read_text())
            return from_mapping(values["config"], source=str(path)), tuple(values["classes"])
        except FileNotFoundError:
            raise RunError(f"{self.path}: not a run directory (it has no config.json)") from None
        except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot read it ({error})") from None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        try:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(dict(record)) + "\n")
        except OSError as error:
            raise RunError(f"{self.metrics_path}: cannot write it ({error.strerror})") from None

    def metrics(self) -> list[dict[str, Any]]:
        """Return every record of metrics.jsonl; a last line that was cut short by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        records = []
        for line in self.metrics_path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break  # nothing follows: a resumed run rewrites the file before it appends
        return records

    def rewind(self, iteration: int) -> None:
        """Drop the records after `iteration`, which a resumed run writes again, and delete half-written files.

        If the iteration is not `finished`, its validation is repeated, so its validation record is dropped too.
        """
        self.remove_leftovers()
        finished = self.finished(iteration)
        kept = [
            record
            for record in self.metrics()
            if record["iteration"] < iteration
            or (record["iteration"] == iteration and (finished or record.get("kind") != "validation"))
        ]
        write_text(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))

    def remove_leftovers(self) -> None:
        """Delete the half-written files of killed processes."""
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def finished(self, iteration: int) -> bool:
        """Whether the save of an iteration is complete: last.safetensors, written at its end, has that iteration."""
        summary = load_summary(self.checkpoints / "last.safetensors")
        return summary is not None and summary[0] == iteration

    def best(self, metric: str) -> float:
        """Return a metric of the best checkpoint; −∞ without such a checkpoint or metric."""
        summary = load_summary(self.checkpoints / "best.safetensors")
        return float("-inf") if summary is None else summary[1].get(metric, float("-inf"))

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint to checkpoints/{name}.safetensors."""
        path = self.checkpoints / f"{name}.safetensors"
        save_checkpoint(path, checkpoint)
        return path

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the training state to resume.pt: all that a resumed run needs besides its configuration.

        One file holds all of it, so weights and optimiser are always of the same iteration.
        """
        write_atomically(self.resume_path, lambda temporary: torch.save(dict(state), temporary))

    def require_state(self) -> None:
        """Raise RunError if there is no training state to resume from."""
        if not self.resume_path.exists():
            raise RunError(f"{self.path}: no checkpoint to resume from (checkpoints/resume.pt is missing)")

    def load_state(self) -> dict[str, Any]:
        """Load the training state that `save_state` wrote last.

        Raises:
            RunError: it is missing, unreadable, or not a training state.
        """
        self.require_state()
        try:
            state = torch.load(self.resume_path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RunError(f"{self.resume_path}: cannot read it ({one_line(error)})") from None
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
            raise RunError(
                f"{self.resume_path}: not a training state (expected a dict with {sorted(STATE_KEYS)})"
            )
        return state
