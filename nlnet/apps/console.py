"""What people see in a terminal: bars with an ETA, tables, and plain lines where there is no terminal.

Progress goes to stderr and results to stdout, so that `nlnet … --json | …` works.
"""

import json
from collections.abc import Mapping, Sequence
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
ERR = Console(stderr=True)


def bar() -> Progress:
    """A progress display on stderr; it vanishes when it is done."""
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
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Group:
    """A title line and a table whose first column is text and whose other columns are numbers.

    Cells are shown as they are, brackets and all: they may name files and classes. `Text` brings a style.
    """
    made = Table(header_style="bold")
    for position, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(_shown(cell) for cell in row))
    return Group(Text(title, style="bold"), made)


def facts(title: str, values: Mapping[str, object]) -> Table:
    """Names and values, without a frame."""
    made = Table.grid(padding=(0, 2))
    made.add_row(Text(title, style="bold"))
    for name, value in values.items():
        made.add_row(Text(f"  {name}"), _shown(value))
    return made


def _shown(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text("–" if cell is None else str(cell))


class TrainingDisplay:
    """Watches a training run: its facts, a bar with the newest loss, and a line per validation."""

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
        ERR.print(facts(self.title, facts_))
        self.task = self.progress.add_task("training", total=total, completed=start, note="")

    def step(self, iteration: int) -> None:
        self.progress.update(self.task, completed=iteration)

    def record(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            note = f"loss {record['loss']:.3f} · {_percentages(record)} · {record['clips_per_second']:.1f} clips/s"
            self.progress.update(self.task, note=note)
            if not ERR.is_terminal:
                ERR.print(f"iteration {record['iteration']}: {note} · rate {record['lr']:.2g}")
        elif record["kind"] == "validation":
            ERR.print(f"iteration {record['iteration']}: validation {_percentages(record)}")
        elif record["kind"] == "skipped":
            self.skipped += 1
            line = Text.assemble(("skipped", "yellow"), f" ({self.skipped} so far): {record['reason']}")
            ERR.print(line)


def _percentages(record: Mapping[str, Any]) -> str:
    """The metrics of a record, which begin with clip_ or video_."""
    return ", ".join(f"{k} {v:.2f} %" for k, v in record.items() if k.startswith(("clip_", "video_")))


def show_failures(reasons: Sequence[str]) -> None:
    if reasons:
        OUT.print(f"[yellow]{len(reasons)} videos could not be read and were left out:")
        for reason in reasons:
            OUT.print(f"  {reason}", markup=False, highlight=False)


def show_missing(paths: Sequence[str]) -> None:
    if paths:
        OUT.print(f"[yellow]{len(paths)} videos that the list names are not on the disk and were left out:")
        for path in paths:
            OUT.print(f"  {path}", markup=False, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
