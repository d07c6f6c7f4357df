"""Who watches a run: a progress bar, or nobody."""

from collections.abc import Mapping
from typing import Any, Protocol


class Listener(Protocol):
    """What training tells while it goes on."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        """Training starts at iteration `start` of `total`."""

    def step(self, iteration: int) -> None:
        """`iteration` steps are done."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A line went to metrics.jsonl."""


class Silent:
    """A listener that does nothing."""

    def begin(self, start: int, total: int, facts: Mapping[str, str]) -> None:
        pass

    def step(self, iteration: int) -> None:
        pass

    def record(self, record: Mapping[str, Any]) -> None:
        pass
