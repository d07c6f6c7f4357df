"""Compare a training step of our block with one of mmcv's NonLocal2d and NonLocal3d, with the same convention.

    pip install -c constraints.txt '.[video]' mmcv-lite
    python benchmarks/peers.py --out benchmarks/results/peers-cpu.json

mmcv's concatenation cannot be trained: its backward raises an error, and it holds 2d numbers for each pair of positions.
Ours is measured alone there.
"""

import argparse
import os
from importlib.metadata import version
from pathlib import Path

import torch
from mmcv.cnn import NonLocal2d, NonLocal3d
from torch import nn

from nlnet.apps.bench.block import Shape, block_comparisons
from nlnet.apps.bench.command import DTYPES, as_entry, print_table, result_header
from nlnet.apps.bench.side_by_side import time_by_turns
from nlnet.engine.runs.atomic_write import write_json


def mmcv_block(shape: Shape, pairwise: str) -> nn.Module | None:
    """mmcv's block for an input shape: batch norm after W_z, pooled keys, scaled softmax; None if it cannot be trained."""
    if pairwise == "concatenation":
        return None
    block, norm = {4: (NonLocal2d, "BN"), 5: (NonLocal3d, "BN3d")}[len(shape)]
    return block(shape[1], mode=pairwise, sub_sample=True, norm_cfg={"type": norm})


def main() -> None:
    """Time all shapes and pairwise functions, print tables and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="seconds for each shape and pairwise function"
    )
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    options = parser.parse_args()
    result = result_header(options.device, options.precision) | {"mmcv-lite": version("mmcv-lite")}
    for comparison in block_comparisons(options.device, DTYPES[options.precision], plain=mmcv_block):
        timings = time_by_turns(comparison, seconds=options.seconds)
        result["comparisons"].append(as_entry("peers", comparison, timings))
        print_table(comparison, timings)
    result["load_after"] = os.getloadavg()
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
