"""A run directory: config.json, metrics.jsonl, checkpoints/. It is all that the other verbs need.

Every file is written whole under another name and then renamed, so that a kill, a full disk or a second
reader never meets half a file.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlnet.engine.config import Config, from_mapping
from nlnet.models import Weights, WeightsError, read_weights


class RunError(ValueError):
    """A run directory or checkpoint that is missing, unreadable, in the way, or of another run."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights with what is needed to use them."""

    weights: dict[str, Tensor]
    config: Config
    classes: tuple[str, ...]
    iteration: int
    metrics: dict[str, float]


def atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary path beside `path`, flush it to disk, and rename it into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunError(f"{path.parent}: cannot write there ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap a full disk
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"{path}: cannot write it ({reason}); what was there before is unchanged") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text(text)

    atomically(path, write)


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


class RunDir:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.resume_path = self.checkpoints / "resume.pt"
        self.missing_path = path / "missing.json"

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

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
        """Drop the records after `iteration`: a resumed run writes them again."""
        kept = [record for record in self.metrics() if record["iteration"] <= iteration]
        write_text(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept))

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write checkpoints/{name}.safetensors with its metadata."""
        path = self.checkpoints / f"{name}.safetensors"
        save_checkpoint(path, checkpoint)
        return path

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write what a resumed run needs besides its configuration: one file, so it is always of one moment."""
        atomically(self.resume_path, lambda temporary: torch.save(dict(state), temporary))

    def load_state(self) -> dict[str, Any]:
        try:
            return torch.load(self.resume_path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise RunError(
                f"{self.path}: no checkpoint to resume from (checkpoints/resume.pt is missing)"
            ) from None
        except Exception as error:  # torch raises many kinds for a damaged file
            raise RunError(f"{self.resume_path}: cannot read it ({error})") from None


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, origin: str = "") -> None:
    """Write a .safetensors file with what is needed to use it; `origin` says where foreign weights came from."""
    metadata = {
        "config": checkpoint.config.model_dump_json(),
        "classes": json.dumps(checkpoint.classes),
        "iteration": str(checkpoint.iteration),
        "metrics": json.dumps(checkpoint.metrics),
    } | ({"origin": origin} if origin else {})
    weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.weights.items()}
    atomically(path, lambda temporary: save_file(weights, temporary, metadata))


def load_checkpoint(path: Path, name: str = "last") -> Checkpoint:
    """A checkpoint from a .safetensors file of nlnet, or a run directory's checkpoint `name` (last or best)."""
    if path.is_dir():
        directory, path = path, path / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            raise RunError(
                f"{directory}: no checkpoint {name!r} here; expected a run directory of `nlnet train`"
            )
    if not path.exists():
        raise RunError(f"{path}: no such file; expected a run directory or a .safetensors checkpoint")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a readable .safetensors file ({error})") from None
    if "config" not in metadata:
        raise RunError(f"{path}: has no nlnet metadata; as plain weights it can serve as init.weights only")
    return Checkpoint(
        weights=weights,
        config=from_mapping(json.loads(metadata["config"]), source=str(path)),
        classes=tuple(json.loads(metadata["classes"])),
        iteration=int(metadata["iteration"]),
        metrics=json.loads(metadata["metrics"]),
    )


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Plain weights to start from, in our names: a run, or any file that `nlnet.models.read_weights` reads."""
    return load_weights_file(path).state


def load_weights_file(path: Path) -> Weights:
    """`nlnet.models.read_weights` of a run or a file, its errors as `RunError`."""
    try:
        return read_weights(path)
    except (WeightsError, OSError) as error:
        raise RunError(str(error)) from None
