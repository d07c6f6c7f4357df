"""Summary of an insertion: the blocks, their sizes and their costs, as rows and as a table of text."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One inserted block; without an example input, everything from `queries` on is None."""

    path: str
    """The path of the target."""
    ndim: int
    """Axes of the map."""
    channels: int
    """C, the channels of the map."""
    inner: int
    """d, the inner channels."""
    parameters: int
    queries: int | None = None
    """N, the query positions of one problem: of one frame, group or location, depending on `axis`."""
    keys: int | None = None
    """M, the key positions of one problem."""
    problems: int | None = None
    """Independent problems in one sample."""
    macs: int | None = None
    """Multiply-adds of one sample, by the quadratic definition."""
    algorithm: str | None = None
    """The algorithm that computes the operation at this size, dtype and device."""
    definition_bytes: int | None = None
    """Working memory of the operation by the definition, for the example's batch."""
    algorithm_bytes: int | None = None
    """Working memory with `algorithm`."""


@dataclass(frozen=True)
class Summary:
    """The result of `insert_nonlocal`: one row per block; `str` makes a table of them."""

    rows: tuple[Row, ...]

    @property
    def paths(self) -> list[str]:
        """The targets, in the model's order."""
        return [row.path for row in self.rows]

    def __str__(self) -> str:
        table = [("after", "map", "C", "d", "problems × N × M", "parameters", "MACs", "algorithm", "memory")]
        for row in self.rows:
            known = row.queries is not None
            table.append(
                (
                    row.path,
                    f"{row.ndim}-D",
                    f"{row.channels}",
                    f"{row.inner}",
                    f"{row.problems} × {row.queries} × {row.keys}" if known else "–",
                    f"{row.parameters:,}",
                    _short(row.macs, 1000, ("", "k", "M", "G", "T")),
                    row.algorithm or "–",
                    f"{_bytes(row.algorithm_bytes)} (definition {_bytes(row.definition_bytes)})"
                    if known
                    else "–",
                )
            )
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        total = sum(row.parameters for row in self.rows)
        return "\n".join([*lines, f"{len(self.rows)} non-local blocks, {total:,} parameters"])


def _short(value: int | None, base: int, units: tuple[str, ...]) -> str:
    """A number with three digits and a unit: 8.13 G."""
    if value is None:
        return "–"
    number, power = float(value), 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    return (
        f"{number:.{0 if number >= 100 or power == 0 else 1 if number >= 10 else 2}f} {units[power]}".rstrip()
    )


def _bytes(value: int | None) -> str:
    return _short(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
