"""Weights with what is needed to use them: .safetensors files of nlnet."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlnet.engine.config import Config, from_mapping
from nlnet.engine.runs.atomic_write import atomically
from nlnet.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights with what is needed to use them."""

    weights: dict[str, Tensor]
    config: Config
    classes: tuple[str, ...]
    iteration: int
    metrics: dict[str, float]


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


def load_facts(path: Path) -> tuple[int, dict[str, float]] | None:
    """The iteration and the metrics of a checkpoint, without its weights; None where there is none that is readable."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return int(metadata["iteration"]), json.loads(metadata["metrics"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
