"""The pictures of each table: accuracies, accuracy by distance (reach), and block statistics over training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from nlnet.apps.ablation.results import Outcome, reach
from nlnet.apps.ablation.study import Row, Table
from nlnet.apps.plots import PALETTE, save
from nlnet.data.diagnostic.bounds import additive_bound, single_item_bound

LEVELS = {"blind to the cue": 100 * single_item_bound(), "local evidence at most": 100 * additive_bound()}
SHADES = {
    "local": ("#8a8f98",),
    "convolution": ("#3a8f5c", "#74b98f"),
    "control": (PALETTE["control"], "#edb37f"),
    "nonlocal": ("#0b3c66", "#1769aa", "#4f9bd8", "#7d5fb2", "#b08fdb", "#2aa5a0"),
}
"""Colours by kind of network; they differ in lightness, so that they can be told apart without colour vision."""
TITLES = {
    "space": "space task",
    "time": "time task",
    "spacetime": "spacetime task",
    "long": "time task, long clips",
}
AXIS_LABELS = {"space": "cue to digit, pixels", "time": "cue to digit, frames"}
STATISTICS = {
    "gamma": "mean |γ| of W_z's norm",
    "ratio": "‖residual‖ / ‖x‖",
    "entropy": "entropy of |f| / log M",
}


def kind_of(row: Row) -> str:
    """Return the kind of a row's network, a key of `SHADES`."""
    name = row.model.name
    if "_nl" in name:
        return "nonlocal"
    if "_rb" in name:
        return "control"
    return "local" if name.startswith("c2d") else "convolution"


def colours(rows: Sequence[Row]) -> dict[str, str]:
    """Return a colour for each row name; rows of one kind take its shades in turn."""
    used: dict[str, int] = {}
    found = {}
    for row in rows:
        kind = kind_of(row)
        shades = SHADES[kind]
        found[row.name] = shades[used.get(kind, 0) % len(shades)]
        used[kind] = used.get(kind, 0) + 1
    return found


def table_picture(table: Table, outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Save a line of panels for each data set of the table: accuracies, reach in space, reach in time."""
    sets = list(dict.fromkeys(row.data for row in table.rows if row.name in outcomes))
    # rows on different data sets cannot be compared, so each data set has its own line
    lines = [[row for row in table.rows if row.data == data and row.name in outcomes] for data in sets]
    heights = [0.8 + 0.34 * max(len(rows), 5) for rows in lines]
    # no column for an axis along which no data set of the table has distances that differ
    axes = [axis for axis in AXIS_LABELS if any(len(reach(one, axis)) > 1 for one in outcomes.values())]
    figure, panels = plt.subplots(
        len(lines),
        1 + len(axes),
        figsize=(5.5 + 3.75 * len(axes), sum(heights) + 0.3),
        width_ratios=(1.35, *(1 for _ in axes)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for line, rows, data in zip(panels, lines, sets, strict=True):
        shade = colours(rows)
        bars(line[0], rows, outcomes, shade)
        if len(lines) > 1:
            line[0].set_title(TITLES.get(data, data), loc="left", fontsize=10)
        for panel, axis in zip(line[1:], axes, strict=True):
            curves(panel, rows, outcomes, shade, axis)
    figure.suptitle(table.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    save(figure, path)


def bars(panel: Axes, rows: Sequence[Row], outcomes: Mapping[str, Outcome], shade: Mapping[str, str]) -> None:
    """Draw the mean over seeds as a bar, its interval as a line and every seed as a dot."""
    for position, row in enumerate(rows):
        value = outcomes[row.name].accuracy
        panel.barh(position, value.value, color=shade[row.name], height=0.68)
        panel.plot([value.low, value.high], [position, position], color="#111111", lw=1.4, zorder=3)
        panel.scatter(
            value.seeds,
            [position] * len(value.seeds),
            s=20,
            facecolor="white",
            edgecolor="#111111",
            lw=0.9,
            zorder=4,
        )
        panel.annotate(
            f"{value.value:.1f}", (101.5, position), va="center", fontsize=8, annotation_clip=False
        )
    for level in LEVELS.values():
        panel.axvline(level, color="#444444", lw=0.8, ls=":")
    prefix = f"{rows[0].data} task: "
    panel.set_yticks(range(len(rows)), [row.name.removeprefix(prefix) for row in rows], fontsize=9)
    panel.invert_yaxis()
    panel.set(xlim=(0, 101), xlabel="video_top1, %")
    _style(panel)


def curves(
    panel: Axes, rows: Sequence[Row], outcomes: Mapping[str, Outcome], shade: Mapping[str, str], axis: str
) -> None:
    """Draw accuracy by distance; the panel stays empty if all distances are the same."""
    drawn = 0
    for row in rows:
        bins = reach(outcomes[row.name], axis)
        if len(bins) < 2:  # one distance gives a point, not a curve
            continue
        middle = [(b.low + b.high) / 2 for b in bins]
        panel.plot(middle, [b.accuracy.value for b in bins], color=shade[row.name], marker="o", ms=3, lw=1.5)
        panel.fill_between(
            middle,
            [b.accuracy.low for b in bins],
            [b.accuracy.high for b in bins],
            color=shade[row.name],
            alpha=0.12,
            lw=0,
        )
        drawn += 1
    if not drawn:
        panel.axis("off")
        return
    for name, level in LEVELS.items():
        panel.axhline(level, color="#444444", lw=0.8, ls=":")
        panel.annotate(name, (0.01, level), xycoords=("axes fraction", "data"), va="bottom", fontsize=7)
    panel.set(ylim=(0, 101), xlabel=AXIS_LABELS[axis], ylabel="video_top1, %", title=f"reach in {axis}")
    panel.title.set_fontsize(10)
    _style(panel)


def block_stats_picture(table: Table, outcomes: Mapping[str, Outcome], path: Path) -> bool:
    """Save the statistics of every block over training, a line of panels for each row; return whether there are any.

    First seed; blocks from shallow (light) to deep (dark).
    """
    shown = [row for row in table.rows if row.name in outcomes and outcomes[row.name].block_stats]
    if not shown:
        return False
    figure, panels = plt.subplots(
        len(shown),
        len(STATISTICS),
        figsize=(11, 1.5 * len(shown) + 0.6),
        sharex=True,
        sharey="col",
        layout="constrained",
        squeeze=False,
    )
    for line, row in zip(panels, shown, strict=True):
        records = outcomes[row.name].block_stats
        blocks = list(dict.fromkeys(r["block"] for r in records))
        for panel, (key, label) in zip(line, STATISTICS.items(), strict=True):
            for depth, block in enumerate(blocks, start=1):
                points = series(records, block, key)
                shade = plt.get_cmap("Blues")(0.35 + 0.6 * depth / len(blocks))
                panel.plot([n for n, _ in points], [value for _, value in points], color=shade, lw=1.4)
            panel.set_title(label if row is shown[0] else "", fontsize=10)
            _style(panel)
        many = f"\n{len(blocks)} blocks" if len(blocks) > 1 else ""
        line[0].set_ylabel(row.name + many, rotation=0, ha="right", va="center", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("iteration")
    save(figure, path)
    return True


def series(records: Sequence[Mapping[str, Any]], block: str, key: str) -> list[tuple[int, float]]:
    """Return (iteration, value) of one statistic of a block, without the iterations at which it has no finite value."""
    return [(r["iteration"], r[key]) for r in records if r["block"] == block and r[key] is not None]


def _style(panel: Axes) -> None:
    """Draw a faint grid, and no border at the top and right."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    panel.set_axisbelow(True)
