"""Terminal output: progress bars, tables, lists of names and values, JSON.

Progress goes to stderr and results go to stdout, so that `nlnet … --json | …` works.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

OUT = Console()
"""For results: stdout."""
ERR = Console(stderr=True)
"""For progress and warnings: stderr."""


def bar() -> Progress:
    """Return a progress bar on stderr with the time left, for terminals only; it disappears when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[cyan]{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
        disable=not ERR.is_terminal,  # otherwise rich leaves an empty line in a log file
    )


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, text: Collection[int] = (0,)
) -> Group:
    """Return a table under a title; columns whose number is in `text` are aligned left, all others right.

    Cells are printed literally: a name of a file or class may hold brackets, which rich would read as markup. A cell
    of type `Text` keeps its style; None is printed as a dash.
    """
    made = Table(header_style="bold")
    for position, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if position in text else "right", overflow="fold")
    for row in rows:
        made.add_row(*(_shown(cell) for cell in row))
    return Group(Text(title, style="bold"), made)


def open_table(*columns: str, left: int = 1) -> Table:
    """Return an empty table without a frame, for wide rows; the first `left` columns are aligned left."""
    made = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position < left else "right", overflow="fold")
    return made


def facts(title: str, values: Mapping[str, object]) -> Table:
    """Return a table of names and values under a title, without a frame."""
    made = Table.grid(padding=(0, 2))
    made.add_row(Text(title, style="bold"))
    for name, value in values.items():
        made.add_row(Text(f"  {name}"), _shown(value))
    return made


def _shown(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text("–" if cell is None else str(cell))


class TrainingDisplay:
    """The training callback of `nlnet train`: the run's facts, a progress bar with the loss, a line per validation."""

    def __init__(self, title: str) -> None:
        self.title, self.progress, self.task = title, bar(), TaskID(0)
        self.skipped = 0

    def __enter__(self) -> "TrainingDisplay":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def begin(self, start: int, total: int, facts_: Mapping[str, str]) -> None:
        """Print the facts of the run, and show the progress bar."""
        ERR.print(facts(self.title, facts_))
        self.task = self.progress.add_task("training", total=total, completed=start, note="")

    def step(self, iteration: int) -> None:
        """Advance the progress bar."""
        self.progress.update(self.task, completed=iteration)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show a record of metrics.jsonl: the loss beside the bar; validations and skipped batches as lines."""
        if record["kind"] == "train":
            note = f"loss {record['loss']:.3f} · {_percentages(record)} · {record['clips_per_second']:.1f} clips/s"
            self.progress.update(self.task, note=note)
            if not ERR.is_terminal:  # a log file shows no bar
                ERR.print(f"iteration {record['iteration']}: {note} · learning rate {record['lr']:.2g}")
        elif record["kind"] == "validation":
            ERR.print(f"iteration {record['iteration']}: validation {_percentages(record)}")
        elif record["kind"] == "skipped":
            self.skipped += 1
            line = Text.assemble(("skipped", "yellow"), f" ({self.skipped} so far): {record['reason']}")
            ERR.print(line)


def _percentages(record: Mapping[str, Any]) -> str:
    """Return the metrics of a record, such as "clip_top1 50.00 %"."""
    return ", ".join(f"{k} {v:.2f} %" for k, v in record.items() if k.startswith(("clip_", "video_")))


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 video" or "2 videos"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def show_failures(reasons: Sequence[str]) -> None:
    """Print the videos that could not be read, each with the reason."""
    _show_left_out(f"{counted(len(reasons), 'video')} left out, unreadable:", reasons)


def show_missing(paths: Sequence[str]) -> None:
    """Print the videos that a list names and the disk does not have."""
    _show_left_out(f"{counted(len(paths), 'video')} left out, named in the list but not on the disk:", paths)


def _show_left_out(title: str, lines: Sequence[str]) -> None:
    if lines:
        OUT.print(title, style="yellow", markup=False, highlight=False)
        for line in lines:
            OUT.print(f"  {line}", markup=False, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as one JSON document on stdout."""
    print(json.dumps(value, indent=2))
