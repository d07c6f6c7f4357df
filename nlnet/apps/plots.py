"""Pictures of runs: curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from nlnet.engine.runs.atomic_write import atomically

PALETTE = {"local": "#8a8f98", "control": "#d98032", "nonlocal": "#1769aa"}
"""One colour a network, readable on white and in grey."""


def save(figure: Any, path: Path) -> None:
    atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=130))
    plt.close(figure)


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, chance: Mapping[str, float]
) -> None:
    """Training loss and validation accuracy of several runs.

    Args:
        runs: the records of metrics.jsonl by run; a run's name begins with its network's ("nonlocal-0").
        chance: named horizontal lines in the accuracy panel, percent.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    labelled = set()
    for name, records in runs.items():
        network = name.rpartition("-")[0] or name
        style = {"color": PALETTE.get(network, "#333333"), "label": None if network in labelled else network}
        labelled.add(network)
        train = [r for r in records if r["kind"] == "train"]
        left.plot([r["iteration"] for r in train], [r["loss"] for r in train], lw=1.2, **style)
        checks = [r for r in records if r["kind"] == "validation"]
        right.plot(
            [r["iteration"] for r in checks],
            [r["clip_top1"] for r in checks],
            lw=1.5,
            marker="o",
            ms=3,
            **style,
        )
    for label, level in chance.items():
        right.axhline(level, color="#444444", lw=0.8, ls=":")
        right.annotate(label, (0.02, level), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    left.set(xlabel="iteration", ylabel="training loss", title="Loss")
    right.set(
        xlabel="iteration", ylabel="validation clip_top1, %", title="Accuracy on single clips", ylim=(0, 101)
    )
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    right.legend(frameon=False, loc="lower right")
    save(figure, path)
