"""A run directory: config.json, passport.json, metrics.jsonl, checkpoints/. It is all that the other verbs need.

One process at a time trains there (`RunDir.lock`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nlnet.engine.config import Config, from_mapping
from nlnet.engine.runs.atomic_write import atomically, sweep, write_json, write_text
from nlnet.engine.runs.checkpoint import Checkpoint, load_checkpoint, load_facts, save_checkpoint
from nlnet.engine.runs.lock import LockedError, exclusive, held
from nlnet.engine.runs.provenance import passport
from nlnet.errors import RunError

__all__ = [
    "Checkpoint",
    "RunDir",
    "RunError",
    "atomically",
    "load_checkpoint",
    "save_checkpoint",
    "write_json",
    "write_text",
]


class RunDir:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.resume_path = self.checkpoints / "resume.pt"
        self.missing_path = path / "missing.json"
        self.passport_path = path / "passport.json"
        self.lock_path = path / "lock"

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process at work here, inside; makes the directory.

        Raises:
            RunError: another process is at work here.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            holding = exclusive(self.lock_path)
            holding.__enter__()
        except LockedError as error:
            raise RunError(
                f"{self.path}: another process is at work in this run ({error}); wait for its end, or choose "
                "another --out"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot write there ({error.strerror})") from None
        try:
            yield
        finally:
            holding.__exit__(None, None, None)

    @property
    def busy(self) -> bool:
        """Whether a process is at work here."""
        return held(self.lock_path)

    def sign(self, iteration: int) -> None:
        """Add to passport.json that a session starts at `iteration`: commit, machine, versions, and the time (UTC)."""
        entries = self.passports()
        entry = {
            "iteration": iteration,
            **passport(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.passport_path, [*entries, entry])

    def passports(self) -> list[dict[str, Any]]:
        """The sessions of passport.json, the first first; none of a run that was made without."""
        try:
            entries = json.loads(self.passport_path.read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RunError(f"{self.passport_path}: cannot read it ({error})") from None
        if not isinstance(entries, list):
            raise RunError(f"{self.passport_path}: cannot read it (expected a list of sessions)")
        return entries

    def refuse_if_used(self) -> None:
        """Raise if a run is already here."""
        if self.exists:
            raise RunError(
                f"{self.path}: a run is already here; continue it with --resume {self.path}, or choose another --out"
            )

    def create(
        self, config: Config, classes: tuple[str, ...], missing: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Start a new run here; refuses a directory that already holds one.

        `missing` are the videos that each annotation file names and the disk lacks; if there are any, they are
        listed in missing.json.
        """
        self.refuse_if_used()
        self.sweep()
        if missing:
            write_json(self.missing_path, missing)
        write_json(
            self.path / "config.json", {"config": config.model_dump(mode="json"), "classes": list(classes)}
        )

    def check_missing(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Raise if the disk does not lack just the videos that it lacked when the run began: its order would change."""
        before = json.loads(self.missing_path.read_text()) if self.missing_path.exists() else {}
        if before != missing:
            counts = [sum(len(paths) for paths in lists.values()) for lists in (before, missing)]
            raise RunError(
                f"{self.path}: began without {counts[0]} videos that the disk lacked, now it lacks {counts[1]} or "
                "others; a run goes on with the videos that it began with"
            )

    def read_config(self) -> tuple[Config, tuple[str, ...]]:
        """The run's configuration and class names."""
        path = self.path / "config.json"
        try:
            values = json.loads(path.read_text())
            return from_mapping(values["config"], source=str(path)), tuple(values["classes"])
        except FileNotFoundError:
            raise RunError(f"{self.path}: not a run directory (it has no config.json)") from None
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot read it ({error})") from None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with self.metrics_path.open("a") as file:
                file.write(json.dumps(dict(record)) + "\n")
        except OSError as error:
            raise RunError(f"{self.metrics_path}: cannot write it ({error.strerror})") from None

    def metrics(self) -> list[dict[str, Any]]:
        """Every record of metrics.jsonl; a last line cut short by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        records = []
        for line in self.metrics_path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewind(self, iteration: int) -> None:
        """Go back to `iteration`: drop the records after it, which a resumed run writes again, and half-written files.

        Where the iteration is not `finished`, its validation is still to come and has no record either.
        """
        self.sweep()
        finished = self.finished(iteration)
        kept = [
            record
            for record in self.metrics()
            if record["iteration"] < iteration
            or (record["iteration"] == iteration and (finished or record.get("kind") != "validation"))
        ]
        write_text(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))

    def sweep(self) -> None:
        """Delete what a killed process left half written."""
        for folder in (self.path, self.checkpoints):
            sweep(folder)

    def finished(self, iteration: int) -> bool:
        """Whether all that belongs to a saved iteration is done: last.safetensors is written at its end."""
        facts = load_facts(self.checkpoints / "last.safetensors")
        return facts is not None and facts[0] == iteration

    def best(self, metric: str) -> float:
        """The metric of the checkpoint `best`; −∞ where there is none yet."""
        facts = load_facts(self.checkpoints / "best.safetensors")
        return float("-inf") if facts is None else facts[1].get(metric, float("-inf"))

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write checkpoints/{name}.safetensors with its metadata."""
        path = self.checkpoints / f"{name}.safetensors"
        save_checkpoint(path, checkpoint)
        return path

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what a resumed run needs besides its configuration: one file, so it is always of one moment."""
        atomically(self.resume_path, lambda temporary: torch.save(dict(state), temporary))

    def require_state(self) -> None:
        """Raise if there is nothing to resume from."""
        if not self.resume_path.exists():
            raise RunError(f"{self.path}: no checkpoint to resume from (checkpoints/resume.pt is missing)")

    def load_state(self) -> dict[str, Any]:
        """What `save_state` wrote last."""
        self.require_state()
        try:
            return torch.load(self.resume_path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RunError(f"{self.resume_path}: cannot read it ({error})") from None
