"""Our block beside mmcv's NonLocal2d and NonLocal3d, in training, with the same convention.

    pip install -c constraints.txt '.[video]' mmcv-lite
    python benchmarks/peers.py --out benchmarks/results/peers-cpu.json

mmcv's concatenation cannot train (its backward raises) and asks for 2d numbers a pair: ours runs alone there.
"""

import argparse
import os
from importlib.metadata import version
from pathlib import Path

import torch
from mmcv.cnn import NonLocal2d, NonLocal3d
from torch import nn

from nlnet.apps.bench.block import Shape, block_contests
from nlnet.apps.bench.command import DTYPES, heading, record, show
from nlnet.apps.bench.side_by_side import race
from nlnet.engine.runs.atomic_write import write_json


def mmcvs(shape: Shape, pairwise: str) -> nn.Module | None:
    """mmcv's block for that map; batch norm after W_z, keys pooled, softmax scaled."""
    if pairwise == "concatenation":
        return None
    block, norm = {4: (NonLocal2d, "BN"), 5: (NonLocal3d, "BN3d")}[len(shape)]
    return block(shape[1], mode=pairwise, sub_sample=True, norm_cfg={"type": norm})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each shape and function")
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = heading(options.device, options.precision) | {"mmcv-lite": version("mmcv-lite")}
    for contest in block_contests(options.device, DTYPES[options.precision], plain=mmcvs):
        timings = race(contest, seconds=options.seconds)
        result["contests"].append(record("peers", contest, timings))
        show(contest, timings)
    result["load_after"] = os.getloadavg()
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
