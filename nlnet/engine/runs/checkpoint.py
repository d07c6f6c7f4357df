"""Checkpoints: weights with their configuration, class names and metrics, in one .safetensors file."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlnet.engine.config import Config, from_json
from nlnet.engine.runs.atomic_write import one_line, write_atomically
from nlnet.errors import ConfigError, RunError


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights with their configuration, class names, iteration and metrics."""

    weights: dict[str, Tensor]
    config: Config
    classes: tuple[str, ...]
    iteration: int
    metrics: dict[str, float]


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, origin: str = "") -> None:
    """Write a checkpoint to a .safetensors file; `origin` says where converted weights came from."""
    metadata = {
        "config": checkpoint.config.model_dump_json(),
        "classes": json.dumps(checkpoint.classes),
        "iteration": str(checkpoint.iteration),
        "metrics": json.dumps(checkpoint.metrics),
    } | ({"origin": origin} if origin else {})
    # safetensors stores contiguous tensors only; convolutions may be channels last
    weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.weights.items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary, metadata))


def load_checkpoint(path: Path, name: str = "last") -> Checkpoint:
    """Load a checkpoint from a .safetensors file of nlnet, or from a run directory by `name` (last or best).

    Raises:
        RunError: the file is missing, unreadable, or not a checkpoint of nlnet.
    """
    if path.is_dir():
        directory, path = path, path / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            raise RunError(
                f"{directory}: no checkpoint {name!r} here; expected a run directory of `nlnet train`, which has last and, "
                "after a validation, best"
            )
    if not path.exists():
        raise RunError(f"{path}: no such file; expected a run directory or a .safetensors checkpoint")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a readable .safetensors file ({one_line(error)})") from None
    if "config" not in metadata:
        raise RunError(f"{path}: has no nlnet metadata; as plain weights it can serve as init.weights only")
    try:
        return Checkpoint(
            weights=weights,
            config=from_json(metadata["config"], source=str(path)),
            classes=tuple(json.loads(metadata["classes"])),
            iteration=int(metadata["iteration"]),
            metrics=json.loads(metadata["metrics"]),
        )
    except ConfigError as error:
        raise RunError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path}: its nlnet metadata are damaged ({type(error).__name__}: {one_line(error)})"
        ) from None


def load_summary(path: Path) -> tuple[int, dict[str, float]] | None:
    """Return iteration and metrics of a checkpoint without loading its weights; None without a readable checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return int(metadata["iteration"]), json.loads(metadata["metrics"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
