"""`nlnet bench`: run the benchmarks of some groups, print tables, and write JSON with their provenance."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.bench.roofline import measure_limits
from nlnet.apps.bench.side_by_side import MIB, Comparison, Timing, time_by_turns
from nlnet.apps.console import ERR, OUT, table
from nlnet.engine.config import Config
from nlnet.engine.distributed import choose_device
from nlnet.engine.runs.atomic_write import write_json
from nlnet.engine.runs.provenance import provenance
from nlnet.errors import ConfigError, did_you_mean

GROUPS = ("op", "growth", "block", "network", "loader", "test")
NO_SHARES: Mapping[str, float] = {}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def run_bench(
    groups: Sequence[str],
    *,
    seconds: float,
    threads: int | None,
    device: str,
    precision: str,
    compiled: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run `nlnet bench`: time the comparisons of some groups and show them; "all" means every group."""
    from nlnet.apps.console import print_json

    unknown = [name for name in groups if name not in (*GROUPS, "all")]
    if unknown or not groups:
        raise ConfigError(
            f"benchmark: got {', '.join(unknown) or 'nothing'}; expected {', '.join(GROUPS)} or all"
            + (did_you_mean(unknown[0], (*GROUPS, "all")) if unknown else "")
        )
    if precision not in DTYPES:
        raise ConfigError(f"precision: got {precision!r}, expected {' or '.join(DTYPES)}")
    device = choose_device(device).type
    if threads is not None:
        torch.set_num_threads(threads)
    result, used = result_header(device, precision), set[torch.dtype]()
    for group in (name for name in GROUPS if name in groups or "all" in groups):
        for comparison in comparisons_of(group, device, DTYPES[precision], compiled):
            # progress goes to stderr: with --json stdout holds JSON alone
            ERR.print(f"{group}: {comparison.name}", highlight=False, markup=False)
            timings = time_by_turns(comparison, seconds=seconds)
            used |= {work.dtype for work in comparison.work.values()}
            shares = shares_of_limits(comparison, timings, device)
            result["comparisons"].append(as_entry(group, comparison, timings, shares))
            if not as_json:
                print_table(comparison, timings, shares)
    # a load above the threads of the benchmark means that other programs were running: the timings are doubtful
    result["load_after"] = os.getloadavg()
    result["limits"] = {
        name: asdict(measure_limits(device, dtype)) for name, dtype in DTYPES.items() if dtype in used
    }
    if not as_json:
        for name, most in result["limits"].items():
            OUT.print(
                f"limits of this machine in {name}: matrix products {most['flops'] / 1e9:,.0f} GFLOP/s, copies "
                f"{most['bytes'] / 1e9:,.1f} GB/s",
                highlight=False,
            )
    if out is not None:
        write_json(out, result)
        ERR.print(f"written: {out}", markup=False)
    if as_json:
        print_json(result)


def result_header(device: str, precision: str) -> dict[str, Any]:
    """The start of a result file: provenance, settings, and the load of the machine before the first measurement."""
    return {
        "provenance": provenance(),
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg(),
        "comparisons": [],
    }


def comparisons_of(group: str, device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Comparison]:
    """The comparisons of one group, made one at a time to save memory."""
    if group in ("op", "growth"):
        from nlnet.apps.bench.operation import growth_comparisons, operation_comparisons

        yield from (operation_comparisons if group == "op" else growth_comparisons)(device, dtype)
    elif group == "block":
        from nlnet.apps.bench.block import block_comparisons

        yield from block_comparisons(device, dtype)
    elif group == "network":
        from nlnet.apps.bench.network import network_comparisons

        yield from network_comparisons(device, compiled=compiled)
    else:
        from nlnet.apps.bench.loading import evaluation_comparisons, loader_comparisons

        yield from loader_comparisons() if group == "loader" else evaluation_comparisons(Config())


def shares_of_limits(comparison: Comparison, timings: Mapping[str, Timing], device: str) -> dict[str, float]:
    """The least time that the roofline allows as a share of the measured time, for ways of known work."""
    return {
        way: measure_limits(device, work.dtype).seconds(work) / timings[way].median
        for way, work in comparison.work.items()
    }


def as_entry(
    group: str,
    comparison: Comparison,
    timings: Mapping[str, Timing],
    shares: Mapping[str, float] = NO_SHARES,
) -> dict[str, Any]:
    """The entry of a comparison in a result file."""
    return {
        "group": group,
        "name": comparison.name,
        **comparison.facts,
        "chosen": comparison.chosen,
        "ways": {
            way: asdict(timing) | ({"of_limit": shares[way]} if way in shares else {})
            for way, timing in timings.items()
        },
    }


def print_table(
    comparison: Comparison, timings: Mapping[str, Timing], shares: Mapping[str, float] = NO_SHARES
) -> None:
    """Print a comparison as a table; * marks the default."""
    rows = [
        [
            f"{way} *" if way == comparison.chosen else way,
            f"{1e3 * t.median:,.1f}",
            f"{1e3 * t.low:,.1f} – {1e3 * t.high:,.1f}",
            t.rounds,
            f"{t.speedup:.2f}×",
            None if t.bytes is None else f"{t.bytes / MIB:,.0f}",
            *([f"{shares[way]:.0%}"] if way in shares else []),
        ]
        for way, t in timings.items()
    ]
    columns = ["way", "ms", "quartiles", "rounds", f"speed, {comparison.baseline} = 1", "peak MiB"]
    columns += ["of limit"] if shares else []
    OUT.print(table(comparison.name, columns, rows))
