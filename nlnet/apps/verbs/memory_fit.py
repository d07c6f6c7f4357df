"""What of a recipe fits into this machine's memory: the most clips a pass, by precision and checkpointing."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from nlnet.apps.console import OUT, table
from nlnet.apps.recipes.costs import GIB, network_cost, step_bytes
from nlnet.apps.recipes.kinetics import KINETICS
from nlnet.engine.config import Config

SHARE = 0.85
"""Of the memory, for what is counted: the rest is for passing buffers, decoding and the runtime."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One way to train the recipe on one device."""

    precision: str
    checkpointing: bool
    clip_bytes: int
    """Activations kept of a clip."""
    state_bytes: int
    """Weights, gradients, optimiser."""
    clips: int
    """The most a pass that fit; 0 where none does."""
    accumulate: int | None
    """The fewest passes of one process that make the recipe's batch; None where nothing fits."""

    @property
    def settings(self) -> str:
        """What to give to `nlnet train`."""
        parts = [f"training.precision={self.precision}"] * (self.precision != "float32")
        parts += ["training.checkpointing=true"] * self.checkpointing
        parts += [f"training.accumulate={self.accumulate}"] * ((self.accumulate or 1) > 1)
        return " ".join(parts)


def fits(config: Config, classes: int, memory: int) -> list[Fit]:
    """Every precision with and without checkpointing, for a device of `memory` bytes."""
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
    """Bytes of the first GPU, or of the machine, and which it is."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return properties.total_memory, properties.name
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine's CPU"


def show_fits(name: str, config: Config, *, as_json: bool) -> int:
    """The table for `nlnet doctor --recipe`; exit code 1 where nothing fits."""
    from nlnet.apps.console import print_json

    memory, device = memory_here()
    recipe = KINETICS.get(name)
    found = fits(config, recipe.classes if recipe else 400, memory)
    if as_json:
        print_json({"device": device, "memory_bytes": memory, "fits": [_document(fit) for fit in found]})
    else:
        rows = [
            [
                fit.precision + (", checkpointing" if fit.checkpointing else ""),
                f"{fit.clip_bytes / GIB:.2f}",
                f"{fit.state_bytes / GIB:.2f}",
                fit.clips or "none",
                "–" if fit.accumulate is None else fit.settings or "as it is",
            ]
            for fit in found
        ]
        columns = [
            "",
            "GiB a clip",
            "GiB weights etc.",
            "clips a pass",
            f"for its batch of {config.training.batch}",
        ]
        title = f"{name} on {device}, {memory / GIB:.0f} GiB, of which {SHARE:.0%} are planned with"
        OUT.print(table(title, columns, rows))
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
