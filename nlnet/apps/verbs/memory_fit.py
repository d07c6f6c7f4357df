"""`nlnet doctor --recipe`: how many clips of a recipe fit in memory, by precision and checkpointing."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.recipes.costs import GIB, network_cost, step_bytes
from nlnet.apps.recipes.kinetics import KINETICS
from nlnet.engine.config import Config

SHARE = 0.85
"""The share of the memory that is planned for activations, weights, gradients and optimiser state. The rest is for
temporary buffers, decoded videos and torch itself."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How many clips fit with one precision, with or without checkpointing, on one device."""

    precision: str
    checkpointing: bool
    clip_bytes: int
    """Activations that are kept for the gradient, of one clip."""
    state_bytes: int
    """Weights, gradients and optimiser state."""
    clips: int
    """The largest number of clips that fit into one forward and backward pass; may be 0."""
    accumulate: int | None
    """The smallest number of passes that make the recipe's batch on one process; None if not even one clip fits."""

    @property
    def title(self) -> str:
        """The row of the table: "float32", or "float32, checkpointing"."""
        return self.precision + (", checkpointing" if self.checkpointing else "")

    @property
    def settings(self) -> str:
        """The settings that train this way, as arguments of `nlnet train`."""
        parts = [f"training.precision={self.precision}"] * (self.precision != "float32")
        parts += ["training.checkpointing=true"] * self.checkpointing
        parts += [f"training.accumulate={self.accumulate}"] * ((self.accumulate or 1) > 1)
        return " ".join(parts)


def fits(config: Config, classes: int, memory: int) -> list[Fit]:
    """Return a `Fit` for each precision, without and with checkpointing, on a device with `memory` bytes."""
    found = []
    for precision in ("float32", "bf16"):
        for checkpointing in (False, True):
            training = config.training.model_copy(
                update={"precision": precision, "checkpointing": checkpointing}
            )
            tried = config.model_copy(update={"training": training})
            clip, states = step_bytes(tried, network_cost(tried, classes), 1)
            batch = config.training.batch
            most = min(batch, max(0, int(SHARE * memory) - states) // clip)
            # all passes of a step have equally many clips, so their number divides the batch
            clips = max((n for n in range(1, most + 1) if batch % n == 0), default=0)
            found.append(
                Fit(
                    precision=precision,
                    checkpointing=checkpointing,
                    clip_bytes=clip,
                    state_bytes=states,
                    clips=most,
                    accumulate=batch // clips if clips else None,
                )
            )
    return found


def memory_here() -> tuple[int, str]:
    """Return the memory in bytes, and the name, of the first GPU, or of the machine if there is none."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return properties.total_memory, properties.name
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine's CPU"


def show_fits(name: str, config: Config, *, as_json: bool) -> int:
    """Print how many clips of a recipe fit; return the exit code, 1 if not even one clip fits."""
    memory, device = memory_here()
    recipe = KINETICS.get(name)
    found = fits(config, recipe.classes if recipe else 400, memory)
    if as_json:
        print_json({"device": device, "memory_bytes": memory, "fits": [_document(fit) for fit in found]})
    else:
        # the small networks of the demo need so little that GiB would be zeros
        unit, size = ("GiB", GIB) if found[0].clip_bytes > GIB / 10 else ("MiB", 2**20)
        rows = [
            [
                fit.title,
                f"{fit.clip_bytes / size:.2f}",
                f"{fit.state_bytes / size:.2f}",
                fit.clips or "none",
                fit.accumulate,
            ]
            for fit in found
        ]
        batch = config.training.batch
        columns = ["", f"{unit} per clip", f"{unit} weights etc.", "clips that fit", f"passes for {batch}"]
        OUT.print(table(f"{name} on {device}: {SHARE:.0%} of {memory / GIB:.0f} GiB", columns, rows))
        if any(fit.clips for fit in found):
            OUT.print(f"Settings for the batch of {batch} clips:")
        for fit in found:
            if fit.clips:
                OUT.print(f"  {fit.title}: {fit.settings or 'none needed'}", highlight=False, soft_wrap=True)
    return 0 if any(fit.clips for fit in found) else 1


def _document(fit: Fit) -> dict[str, Any]:
    return {
        "precision": fit.precision,
        "checkpointing": fit.checkpointing,
        "clip_bytes": fit.clip_bytes,
        "state_bytes": fit.state_bytes,
        "clips": fit.clips,
        "accumulate": fit.accumulate,
        "settings": fit.settings,
    }
