"""`nlnet bench`: what a user waits for, measured here, in tables and as JSON with its passport."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.bench.roofline import limits
from nlnet.apps.bench.side_by_side import MIB, Contest, Timing, race
from nlnet.apps.console import ERR, OUT, table
from nlnet.engine.config import Config
from nlnet.engine.runs.atomic_write import write_json
from nlnet.engine.runs.provenance import passport
from nlnet.errors import ConfigError

GROUPS = ("op", "growth", "block", "network", "loader", "test")
NONE: Mapping[str, float] = {}
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
    """Race the contests of those groups and show them; "all" is every group."""
    from nlnet.apps.console import print_json

    unknown = [name for name in groups if name not in (*GROUPS, "all")]
    if unknown or not groups:
        raise ConfigError(f"got {', '.join(unknown) or 'nothing'}; expected {', '.join(GROUPS)} or all")
    if precision not in DTYPES:
        raise ConfigError(f"precision: got {precision!r}, expected {' or '.join(DTYPES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threads is not None:
        torch.set_num_threads(threads)
    result, used = heading(device, precision), set[torch.dtype]()
    for group in (name for name in GROUPS if name in groups or "all" in groups):
        for contest in contests(group, device, DTYPES[precision], compiled):
            ERR.print(f"{group}: {contest.name}", highlight=False, markup=False)
            timings = race(contest, seconds=seconds)
            used |= {work.dtype for work in contest.work.values()}
            shares = shares_of_limits(contest, timings, device)
            result["contests"].append(record(group, contest, timings, shares))
            if not as_json:
                show(contest, timings, shares)
    result["load_after"] = os.getloadavg()
    result["limits"] = {
        name: asdict(limits(device, dtype)) for name, dtype in DTYPES.items() if dtype in used
    }
    if not as_json:
        for name, most in result["limits"].items():
            OUT.print(
                f"the limit, {name}: products {most['flops'] / 1e9:,.0f} GFLOP/s, copies {most['bytes'] / 1e9:,.1f} GB/s",
                highlight=False,
            )
    if out is not None:
        write_json(out, result)
        ERR.print(f"written: {out}", markup=False)
    if as_json:
        print_json(result)


def heading(device: str, precision: str) -> dict[str, Any]:
    """What the numbers were made on; the load is the machine's before the first of them."""
    return {
        "passport": passport(),
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg(),
        "contests": [],
    }


def contests(group: str, device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Contest]:
    if group in ("op", "growth"):
        from nlnet.apps.bench.operation import growth_contests, operation_contests

        yield from (operation_contests if group == "op" else growth_contests)(device, dtype)
    elif group == "block":
        from nlnet.apps.bench.block import block_contests

        yield from block_contests(device, dtype)
    elif group == "network":
        from nlnet.apps.bench.network import network_contests

        yield from network_contests(device, compiled=compiled)
    else:
        from nlnet.apps.bench.loading import eval_contests, loader_contests

        yield from loader_contests() if group == "loader" else eval_contests(Config())


def shares_of_limits(contest: Contest, timings: Mapping[str, Timing], device: str) -> dict[str, float]:
    """Of what the machine's products and copies would allow, for the ways whose work is known; 1 is the roofline."""
    return {
        way: limits(device, work.dtype).seconds(work) / timings[way].median
        for way, work in contest.work.items()
    }


def record(
    group: str, contest: Contest, timings: Mapping[str, Timing], shares: Mapping[str, float] = NONE
) -> dict[str, Any]:
    """A contest for JSON; the limits that `shares` refer to stand beside them."""
    return {
        "group": group,
        "name": contest.name,
        **contest.facts,
        "chosen": contest.chosen,
        "ways": {
            way: asdict(timing) | ({"of_limit": shares[way]} if way in shares else {})
            for way, timing in timings.items()
        },
    }


def show(contest: Contest, timings: Mapping[str, Timing], shares: Mapping[str, float] = NONE) -> None:
    """One table; * marks what is taken unless asked otherwise."""
    rows = [
        [
            f"{way} *" if way == contest.chosen else way,
            f"{1e3 * t.median:,.1f}",
            f"{1e3 * t.low:,.1f} – {1e3 * t.high:,.1f}",
            t.rounds,
            f"{t.speedup:.2f}×",
            None if t.bytes is None else f"{t.bytes / MIB:,.0f}",
            *([f"{shares[way]:.0%}"] if way in shares else []),
        ]
        for way, t in timings.items()
    ]
    columns = ["way", "ms", "quartiles", "rounds", f"against {contest.baseline}", "MiB more"]
    columns += ["of limit"] if shares else []
    OUT.print(table(contest.name, columns, rows))
