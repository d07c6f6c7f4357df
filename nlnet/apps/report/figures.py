"""The pictures of a run's report: training curves, block statistics, confusion matrix, classes, hardest videos."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from torch import Tensor

from nlnet.apps.plots import PALETTE, save
from nlnet.apps.report.analysis import HardVideo, Records, by_block, of_kind, smooth
from nlnet.block_stats import INACTIVE, SOFTMAX
from nlnet.data import VideoError, VideoItem, open_video

TRAINING, VALIDATION = PALETTE["nonlocal"], PALETTE["control"]
READABLE = 30
"""Up to so many classes, a matrix or a list of bars shows every name."""
NUMBERED = 15
"""Up to so many classes, a matrix shows its numbers."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Use the report's matplotlib style inside the context."""
    with plt.rc_context(STYLE):
        yield


def training_picture(records: Records, path: Path) -> None:
    """Save loss, accuracy and learning rate over iterations: as logged, smoothed, and on the validation videos."""
    train, checks = of_kind(records, "train"), of_kind(records, "validation")
    with styled():
        figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(13, 3.6), width_ratios=(1.2, 1.2, 0.8))
        _raw_and_smooth(loss, train, "loss")
        loss.set(xlabel="iteration", title="Training loss")
        metric = next((key for key in ("clip_top1", "clip_hit1") if train and key in train[0]), None)
        if metric is not None:
            _raw_and_smooth(accuracy, train, metric, label=f"training, {metric}")
        judge = next((key for key in ("video_map", "clip_top1") if checks and key in checks[0]), None)
        if judge is not None:
            accuracy.plot(
                [r["iteration"] for r in checks],
                [r[judge] for r in checks],
                color=VALIDATION,
                marker="o",
                ms=4,
                lw=1.8,
                label=f"validation, {judge}",
            )
        accuracy.set(xlabel="iteration", ylabel="%", title="Accuracy", ylim=(0, 101))
        if accuracy.get_legend_handles_labels()[0]:
            accuracy.legend(loc="best")
        rate.plot([r["iteration"] for r in train], [r["lr"] for r in train], color="#333333", lw=1.5)
        rate.set(xlabel="iteration", title="Learning rate", ylim=(0, None))
        save(figure, path)


def _raw_and_smooth(panel: Axes, train: Records, key: str, *, label: str = "training") -> None:
    """Draw the logged values as a faint line, and their moving mean over a twentieth of the run as a strong one.

    Too few values to smooth are drawn as one strong line.
    """
    iterations, values = [r["iteration"] for r in train], [r[key] for r in train]
    window = len(values) // 20 | 1  # `smooth` needs an odd number
    smoothed = window > 1
    panel.plot(
        iterations,
        values,
        color=TRAINING,
        lw=1,
        alpha=0.35 if smoothed else 1,
        label=None if smoothed else label,
    )
    if smoothed:
        panel.plot(iterations, smooth(values, window), color=TRAINING, lw=1.8, label=label)


def block_stats_picture(records: Records, path: Path) -> None:
    """Save γ, residual ratio and entropy of every block over iterations; later blocks are lighter."""
    blocks = by_block(records)
    softmax = all(statistics[0]["pairwise"] in SOFTMAX for statistics in blocks.values())
    trained = {statistics[0]["switch"] for statistics in blocks.values()}
    gamma = "mean |γ|" if trained == {"norm"} else "mean |γ| or |W_z|"
    titles = {
        "gamma": f"{gamma}: 0 in a fresh block",
        "ratio": "‖block's addition‖ / ‖its input‖",
        "entropy": "Attention entropy / log M" if softmax else "Entropy of |f| / log M",
    }
    shades = plt.get_cmap("viridis")
    with styled():
        figure, panels = plt.subplots(1, 3, figsize=(13, 3.6))
        for panel, (key, title) in zip(panels, titles.items(), strict=True):
            for index, ((block, statistics), marker) in enumerate(zip(blocks.items(), cycle("os^Dv"))):
                panel.plot(
                    [r["iteration"] for r in statistics],
                    # a statistic without a finite value leaves a gap in its line
                    [float("nan") if r[key] is None else r[key] for r in statistics],
                    color=shades(0.85 * index / max(1, len(blocks) - 1)),
                    marker=marker,
                    markevery=max(1, len(statistics) // 12),
                    ms=4,
                    lw=1.5,
                    label=block,
                )
            panel.set(xlabel="iteration", title=title)
            # at least twice the limit of an inactive block, or the noise of one would fill the panel
            panel.set_ylim(0, 1.02 if key == "entropy" else max(panel.get_ylim()[1], 2 * INACTIVE))
        for level, words in ((1, "all keys alike"), (0, "one key")):
            panels[2].annotate(
                words, (0.99, level), xycoords=("axes fraction", "data"), ha="right",
                va="top" if level else "bottom", fontsize=7, color="#555555",
            )  # fmt: skip
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title="block", title_fontsize=8)
        save(figure, path)


def confusion_picture(matrix: Tensor, classes: Sequence[str], path: Path) -> None:
    """Save the confusion matrix in percent of each true class (row), with names and numbers if there are few classes."""
    percent = (100 * matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)).tolist()
    count = len(classes)
    side = min(max(4.5, 0.42 * count + 2), 11)
    with styled():
        figure, panel = plt.subplots(figsize=(side + 1, side))
        # a square-root colour scale for many classes, or single videos would be too pale to see
        scale = PowerNorm(1.0 if count <= READABLE else 0.5, vmin=0, vmax=100)
        image = panel.imshow(percent, cmap="Blues", norm=scale, interpolation="nearest")
        panel.grid(visible=False)
        if count <= READABLE:
            panel.set_xticks(range(count), [_short(c) for c in classes], rotation=45, ha="right", fontsize=8)
            panel.set_yticks(range(count), [_short(c) for c in classes], fontsize=8)
        if count <= NUMBERED:
            for row, values in enumerate(percent):
                for column, value in enumerate(values):
                    if value > 0:
                        panel.text(
                            column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                            color="white" if value > 55 else "#222222",
                        )  # fmt: skip
        unit = "" if count <= READABLE else ", number of the class"
        panel.set(xlabel=f"predicted{unit}", ylabel=f"true{unit}", title="Test videos of each class, %")
        figure.colorbar(image, ax=panel, shrink=0.75, label="% of the true class")
        save(figure, path)


def classes_picture(rows: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Save the classes sorted by a metric; if there are many, a curve of all, and names for the worst and the best.

    Args:
        rows: `Evaluation.by_class()`.
        metric: "top1" or "average_precision".
    """
    known = sorted((r for r in rows if r[metric] is not None), key=lambda r: r[metric])
    few = len(known) <= READABLE
    ends = known if few else [*known[:12], *known[-12:]]
    mean = sum(r[metric] for r in known) / len(known)
    with styled():
        figure, panels = plt.subplots(
            1, 1 if few else 2, figsize=(7 if few else 12, max(2.6, 0.26 * len(ends) + 1)), squeeze=False
        )
        bars = panels[0, -1]
        bars.barh(range(len(ends)), [r[metric] for r in ends], color=TRAINING, height=0.7)
        for index, row in enumerate(ends):
            text = f"{row[metric]:.0f}  ({row['videos']})"
            bars.annotate(text, (101.5, index), va="center", fontsize=7)
        bars.set_yticks(range(len(ends)), [_short(r["class"]) for r in ends], fontsize=8)
        bars.axvline(mean, color="#444444", lw=0.9, ls=":")
        bars.set(xlim=(0, 114), xticks=range(0, 101, 20), xlabel=f"{_words(metric)}, % (number of videos)")
        bars.set_title(
            f"Classes; dotted: their mean, {mean:.1f} %" if few else "The 12 worst and the 12 best classes"
        )
        bars.grid(visible=False, axis="y")
        if not few:
            bars.axhline(11.5, color="#444444", lw=0.8)
            curve = panels[0, 0]
            curve.fill_between(
                range(len(known)), [r[metric] for r in known], color=TRAINING, alpha=0.25, lw=0
            )
            curve.plot([r[metric] for r in known], color=TRAINING, lw=1.8)
            curve.axhline(mean, color="#444444", lw=0.9, ls=":")
            curve.set(
                xlabel="classes, worst first",
                ylabel=f"{_words(metric)}, %",
                ylim=(0, 101),
                title=f"All {len(known)} classes; dotted: their mean, {mean:.1f} %",
            )
        save(figure, path)


def hardest_picture(videos: Sequence[HardVideo], path: Path, *, across: int = 4) -> list[str]:
    """Save the middle frame of each video with its class and the prediction; return why some frames are missing."""
    lines = -(-len(videos) // across)
    reasons = []
    with styled():
        figure, panels = plt.subplots(lines, across, figsize=(2.9 * across, 2.9 * lines), squeeze=False)
        for panel in panels.flat:
            panel.axis("off")
        for panel, video in zip(panels.flat, videos, strict=False):
            try:
                panel.imshow(middle_frame(video.path))
            except VideoError as error:
                reasons.append(str(error))
                panel.text(
                    0.5, 0.5, f"no picture:\n{_short(video.path.name)}\n{error.reason}", ha="center", va="center",
                    fontsize=8, wrap=True, transform=panel.transAxes, bbox={"facecolor": "#eeeeee", "lw": 0},
                )  # fmt: skip
            panel.set_title(
                f"is {_short(video.truth)}: {100 * video.probability:.1f} %\n"
                f"seen as {_short(video.prediction)}: {100 * video.predicted:.1f} %",
                fontsize=8,
            )
        save(figure, path)
    return reasons


def middle_frame(path: Path) -> Any:
    """Return the middle frame of a video, (H, W, 3).

    Raises:
        VideoError: the file does not exist or cannot be decoded.
    """
    with open_video(VideoItem(path=path, label=None)) as video:
        return video.frames([video.num_frames // 2])[0].numpy()


def _short(name: str, most: int = 28) -> str:
    """Cut a long name."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _words(metric: str) -> str:
    """The name of a metric with spaces for underscores."""
    return metric.replace("_", " ")
