"""Callbacks of the training loop, and the log that every record of a run goes through."""

from collections.abc import Mapping
from typing import Any, Protocol

from nlnet.engine.distributed import World
from nlnet.engine.runs.directory import RunDir


class TrainingCallback(Protocol):
    """The methods that training calls while it runs, implemented by a progress bar for example."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        """Training begins at iteration `start` of `total`; `facts` describe the run, by name."""

    def step(self, iteration: int) -> None:
        """`iteration` iterations are done."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A record was added to metrics.jsonl."""


class NoCallback:
    """A callback that does nothing."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        pass

    def step(self, iteration: int) -> None:
        pass

    def record(self, record: Mapping[str, Any]) -> None:
        pass


class RunLog:
    """Adds records to metrics.jsonl and passes them to the callback."""

    def __init__(self, run: RunDir, world: World, callback: TrainingCallback) -> None:
        self.run, self.world, self.callback = run, world, callback

    def __call__(self, record: Mapping[str, Any], *, all_processes: bool = False) -> None:
        """Add a record on the first process; with `all_processes` on every process that calls it."""
        if self.world.first or all_processes:
            self.run.log(record)
            self.callback.record(record)
