"""A run directory: config.json, metrics.jsonl, checkpoints/. It is all that the other verbs need.

Every file is written whole under another name and then renamed, so that a kill, a full disk or a second
reader never meets half a file.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlnet.engine.config import Config, from_mapping


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

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

    def refuse_if_used(self) -> None:
        """Raise if a run is already here."""
        if self.exists:
            raise RunError(
                f"{self.path}: a run is already here; continue it with --resume {self.path}, or choose another --out"
            )

    def create(self, config: Config, classes: tuple[str, ...]) -> None:
        """Start a new run here; refuses a directory that already holds one."""
        self.refuse_if_used()
        write_json(
            self.path / "config.json", {"config": config.model_dump(mode="json"), "classes": list(classes)}
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
        metadata = {
            "config": checkpoint.config.model_dump_json(),
            "classes": json.dumps(checkpoint.classes),
            "iteration": str(checkpoint.iteration),
            "metrics": json.dumps(checkpoint.metrics),
        }
        weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.weights.items()}
        atomically(path, lambda temporary: save_file(weights, temporary, metadata))
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
    """Plain weights to start from: a run, a .safetensors file, or a torch file holding a state dict."""
    if path.is_dir():
        return load_checkpoint(path).weights
    if not path.exists():
        raise RunError(f"{path}: no such file; expected a run directory, a .safetensors or a torch file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        reason = str(error).splitlines()[0]
        raise RunError(f"{path}: not weights that can be loaded safely ({reason})") from None
    for key in ("state_dict", "model_state", "model"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise RunError(f"{path}: expected a state dict (names to tensors), got {type(values).__name__}")
    return values
