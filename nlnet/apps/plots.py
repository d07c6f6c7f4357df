"""Matplotlib figures: make one, save one, and draw the training curves of runs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as MatplotlibFigure

from nlnet.engine.runs.atomic_write import write_atomically

PALETTE = {"local": "#8a8f98", "control": "#d98032", "nonlocal": "#1769aa"}
"""One colour a network, readable on white and in grey."""


class Figure(MatplotlibFigure):
    """A matplotlib figure that is not registered with pyplot and that a notebook shows as a PNG image.

    pyplot would choose a backend for the whole process (a notebook's own plots use it too), show the figure a second
    time, and keep it in memory until it is closed.
    """

    def _repr_png_(self) -> bytes:
        """The PNG image that Jupyter shows for a figure as the value of a cell."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def subplots(
    rows: int = 1,
    columns: int = 1,
    *,
    figsize: tuple[float, float],
    layout: Any = None,
    **options: Any,
) -> tuple[Figure, Any]:
    """Make a figure and its panels, as `matplotlib.pyplot.subplots` returns them; see `Figure`."""
    figure = Figure(figsize=figsize, layout=layout)
    return figure, figure.subplots(rows, columns, **options)


def save(figure: MatplotlibFigure, path: Path) -> None:
    """Write a figure in the format of the path's suffix (atomic write), and close it if pyplot has it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=130))
    plt.close(figure)


def curves_figure(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], *, chance: Mapping[str, float] | None = None
) -> Figure:
    """Draw the training loss and the validation accuracy on single clips of several runs.

    Args:
        runs: the records of metrics.jsonl by run; a run's name begins with its network's ("nonlocal-0").
        chance: named horizontal lines in the accuracy panel, in percent.
    """
    figure, (left, right) = subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    labelled = set()
    metric = clip_metric([record for records in runs.values() for record in records])
    for name, records in runs.items():
        network = name.rpartition("-")[0] or name
        # runs of one network differ in their seed only: one colour and one entry in the legend
        style = {"color": PALETTE.get(network, "#333333"), "label": None if network in labelled else network}
        labelled.add(network)
        train = [r for r in records if r["kind"] == "train"]
        left.plot([r["iteration"] for r in train], [r["loss"] for r in train], lw=1.2, **style)
        checks = [r for r in records if r["kind"] == "validation" and metric in r]
        right.plot(
            [r["iteration"] for r in checks],
            [r[metric] for r in checks],
            lw=1.5,
            marker="o",
            ms=3,
            **style,
        )
    for label, level in (chance or {}).items():
        right.axhline(level, color="#444444", lw=0.8, ls=":")
        right.annotate(label, (0.02, level), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    left.set(xlabel="iteration", ylabel="training loss", title="Loss")
    right.set(
        xlabel="iteration", ylabel=f"validation {metric}, %", title="Accuracy on single clips", ylim=(0, 101)
    )
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    right.legend(frameon=False, loc="lower right")
    return figure


def clip_metric(records: Sequence[Mapping[str, Any]]) -> str:
    """The name of the validation metric on single clips: clip_map where videos have any number of classes, else clip_top1."""
    found = {key for record in records if record["kind"] == "validation" for key in record}
    return "clip_map" if "clip_map" in found else "clip_top1"


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, chance: Mapping[str, float]
) -> None:
    """Save `curves_figure` at `path`."""
    save(curves_figure(runs, chance=chance), path)
