"""Time every algorithm of the non-local operation beside the definition.

    PYTHONPATH=. python benchmarks/operation.py --threads 1

Algorithms take turns within each repeat (interleaved), after a check that they agree with the definition. Prints a
table and writes it, with the machine it was made on, as JSON.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from nlnet.ops import choose_algorithm, nonlocal_operation
from nlnet.ops.cost import ALGORITHMS

SHAPES = [  # B, N, M, d: the paper's blocks at res4 and res3, a 32-frame clip, small windows
    (1, 784, 196, 512),
    (1, 3136, 784, 256),
    (1, 3136, 784, 512),
    (1, 12544, 3136, 256),
    (1, 12544, 12544, 256),
    (16, 49, 49, 64),
    (64, 64, 48, 64),
]
RESULTS = Path(__file__).parent / "results" / "operation-cpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="spent on each operator and shape, at least 3 rounds"
    )
    parser.add_argument(
        "--shape", action="append", type=lambda text: tuple(map(int, text.split(","))), help="B,N,M,d"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made_on = passport(options.threads)
    rows = []
    for shape in options.shape or SHAPES:
        for pairwise in ALGORITHMS:
            rows += measure(pairwise, shape, options.seconds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        json.dumps({"passport": made_on | {"load_after": os.getloadavg()}, "rows": rows}, indent=1) + "\n"
    )


def measure(pairwise: str, shape: tuple[int, int, int, int], seconds: float) -> list[dict]:
    """Forward + backward and forward alone, float32, in milliseconds, one row for each algorithm."""
    batch, queries, keys, width = shape
    torch.manual_seed(0)
    tensors = [torch.randn(batch, length, width).requires_grad_() for length in (queries, keys, keys)]
    weight = torch.randn(2 * width).requires_grad_() if pairwise == "concatenation" else None
    upstream = torch.randn(batch, queries, width)
    settings = {"pairwise": pairwise, "weight": weight, "scale": 1.0 if weight is not None else width**-0.5}
    inputs = tensors if weight is None else [*tensors, weight]

    def train(algorithm: str) -> tuple[Tensor, ...]:
        y = nonlocal_operation(*tensors, **settings, algorithm=algorithm)
        return (y.detach(), *torch.autograd.grad(y, inputs, upstream))

    def forward(algorithm: str) -> Tensor:
        with torch.no_grad():
            return nonlocal_operation(*tensors, **settings, algorithm=algorithm)

    expected = train("definition")
    for algorithm in ALGORITHMS[pairwise]:
        for got, want in zip(train(algorithm), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    del expected
    train_ms = interleaved(train, ALGORITHMS[pairwise], seconds)
    forward_ms = interleaved(forward, ALGORITHMS[pairwise], seconds / 3)
    sizes = {"batch": batch, "queries": queries, "keys": keys, "compared": width, "carried": width}
    chosen = choose_algorithm(pairwise, **sizes, dtype=torch.float32, device="cpu").algorithm
    rows = []
    for algorithm in ALGORITHMS[pairwise]:
        spread = statistics.quantiles(train_ms[algorithm], n=4)
        row = {
            "pairwise": pairwise,
            **sizes,
            "algorithm": algorithm,
            "chosen": algorithm == chosen,
            "train_ms": round(statistics.median(train_ms[algorithm]), 3),
            "train_ms_quartiles": [round(spread[0], 3), round(spread[2], 3)],
            "forward_ms": round(statistics.median(forward_ms[algorithm]), 3),
            "rounds": len(train_ms[algorithm]),
            "speedup": round(
                statistics.median(
                    slow / fast
                    for slow, fast in zip(train_ms["definition"], train_ms[algorithm], strict=True)
                ),
                2,
            ),
        }
        rows.append(row)
        mark = "*" if algorithm == chosen else " "
        print(
            f"{pairwise:14}{batch:3} × {queries:6} × {keys:6}, {width:4} {mark}{algorithm:13}"
            f"{row['train_ms']:10.2f} ms [{spread[0]:.2f}, {spread[2]:.2f}]  forward {row['forward_ms']:9.2f} ms"
            f"  {row['speedup']:6.2f}×",
            flush=True,
        )
    return rows


def interleaved(
    run: Callable[[str], object], algorithms: tuple[str, ...], seconds: float
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {algorithm: [] for algorithm in algorithms}
    end = time.perf_counter() + seconds
    while len(times[algorithms[0]]) < 3 or (time.perf_counter() < end and len(times[algorithms[0]]) < 25):
        for algorithm in algorithms:
            start = time.perf_counter()
            run(algorithm)
            times[algorithm].append((time.perf_counter() - start) * 1e3)
    return times


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def passport(threads: int) -> dict[str, object]:
    """What the numbers are made on, taken before the first one; the digest is of nlnet/ops/*.py."""
    cpu = Path("/proc/cpuinfo")
    names = [
        line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
    ]
    sources = Path(__file__).parents[1] / "nlnet" / "ops"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.glob("*.py")))).hexdigest()
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": git("rev-parse", "HEAD") or "unknown",
        "uncommitted": bool(git("status", "--porcelain", "--", "nlnet/ops", "benchmarks/operation.py")),
        "sources_sha256": digest,
        "load_before": os.getloadavg(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dtype": "float32",
    }


if __name__ == "__main__":
    main()
