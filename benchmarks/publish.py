"""Make docs/benchmarks.md from the JSON files in benchmarks/results, with all ways that were timed, the slow ones too.

python benchmarks/publish.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
TITLES = {
    "op": "The operation, forward and backward",
    "growth": "Growth: N and M doubled",
    "block": "The block beside a plain one, a training step",
    "peers": "The block beside mmcv's, a training step",
    "network": "The network",
    "loader": "Training clips from H.264, a clip",
    "test": "The multi-view test, a video",
}
PREFACE = """# Benchmarks

Made by `python benchmarks/publish.py` from `benchmarks/results/*.json`, which these commands write on a machine that does
nothing else (a CPU with 2 cores takes half an hour for all of them):

```bash
nlnet bench op --seconds 2.5 --out benchmarks/results/operation-cpu.json   # likewise growth, network (30 s), loader, test
nlnet bench op --seconds 2.5 --precision bf16 --out benchmarks/results/operation-cpu-bf16.json
pip install -c constraints.txt '.[video]' mmcv-lite   # the block beside mmcv's
python benchmarks/peers.py --seconds 8 --out benchmarks/results/peers-cpu.json
nlnet bench all --device cuda --precision bf16 --out benchmarks/results/all-cuda-bf16.json   # on a GPU: not run yet
```

Ways take turns, so that a busy machine slows all of them alike. `ms` is the median, then the quartiles; "faster" is the median
of the ratios of neighbouring runs to the first way of the comparison: above 1 is faster than it. "of limit" is the least time by
the roofline divided by the measured time: the least time is the longer of the way's own operations at the rate of one large matrix
product, and of its inputs, outputs and gradients at the rate of one large copy, both measured in the same process. (`tiled` is
counted as keeping no tile; where it keeps all, that is a seventh too much.) MiB is the peak memory of a run above what the process
held before. \\* is the default. Where the losses come from is in [log.md](log.md); the cost rule is in [math.md](math.md).
"""
OLD_NAMES = {
    "passport": "provenance",
    "contests": "comparisons",
    "float32 by channels": "float32, channels-first",
}
"""Old names of keys and ways in result files, and the present names."""


def page(results: Path) -> str:
    """The whole document from a folder of result files."""
    parts = [PREFACE]
    for path in sorted(results.glob("*.json")):
        document = read(path)
        groups = dict.fromkeys(comparison["group"] for comparison in document["comparisons"])
        for group in groups:
            comparisons = [each for each in document["comparisons"] if each["group"] == group]
            title = f"## {TITLES[group]} ({document['device']}, {precisions(group, document)})"
            parts.append(f"{title}\n\n{origin(path.name, document)}\n\n{rows(comparisons)}")
    return "\n".join(parts)


def read(path: Path) -> dict[str, Any]:
    """Read a result file, with old names replaced by the present ones."""

    def renamed(entry: dict[str, Any]) -> dict[str, Any]:
        return {OLD_NAMES.get(key, key): value for key, value in entry.items()}

    document: dict[str, Any] = json.loads(path.read_text(), object_hook=renamed)
    return document


def precisions(group: str, document: dict[str, Any]) -> str:
    """The precisions of a group's results; the networks are measured in both."""
    return "float32 and bf16" if group == "network" else document["precision"]


def origin(name: str, document: dict[str, Any]) -> str:
    """The provenance of a result file in one paragraph: commit, machine, versions, date, load and limits."""
    made = document["provenance"]
    facts = [
        f"{name}: commit {made['commit'][:7]}{made['commit'][40:]}",
        f"{made['machine']}, {document['threads']} threads",
        f"torch {made['torch']}, Python {made['python']}",
        *([f"mmcv-lite {document['mmcv-lite']}"] if "mmcv-lite" in document else []),
        document["started"][:10],
        f"load {document['load_before'][0]:.1f} before and {document['load_after'][0]:.1f} after",
    ]
    limits = [
        f"{precision} products {most['flops'] / 1e9:,.0f} GFLOP/s, copies {most['bytes'] / 1e9:,.1f} GB/s"
        for precision, most in document.get("limits", {}).items()
    ]
    return ", ".join(facts) + "." + (f" Limits: {'; '.join(limits)}." if limits else "")


def rows(comparisons: list[dict[str, Any]]) -> str:
    """One table for all comparisons of a group, with the columns that at least one way needs."""
    ways = [(each, way, timing) for each in comparisons for way, timing in each["ways"].items()]
    limited = any("of_limit" in timing for _, _, timing in ways)
    weighed = any(timing["bytes"] is not None for _, _, timing in ways)
    head = ["what", "way", "ms", "quartiles", "rounds", "faster"] + ["of limit"] * limited + ["MiB"] * weighed
    lines = [head, ["---"] * len(head)]
    for comparison, way, timing in ways:
        line = [
            comparison["name"]
            + (f" (sdpa: {comparison['sdpa']})" if "sdpa" in comparison and way == "sdpa" else ""),
            f"{way} \\*" if way == comparison["chosen"] else way,
            milliseconds(timing["median"]),
            f"{milliseconds(timing['low'])}–{milliseconds(timing['high'])}",
            str(timing["rounds"]),
            f"{timing['speedup']:.2f}×",
        ]
        if limited:
            line.append(f"{timing['of_limit']:.0%}" if "of_limit" in timing else "")
        if weighed:
            line.append("" if timing["bytes"] is None else f"{timing['bytes'] / 2**20:,.0f}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def milliseconds(seconds: float) -> str:
    """A time in ms: whole numbers from 100 on, one decimal below."""
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"


if __name__ == "__main__":
    PAGE.write_text(page(HERE / "results"))
    print(f"written: {PAGE}")
