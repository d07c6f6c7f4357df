"""The cost rule behind algorithm="auto": what each algorithm computes and holds, and which one it picks, and why.

Costs are in multiply-adds of a matrix product, forward; the other terms are given in that unit:

    definition      NM(D + C), or (N + M)D + NMC for concatenation;  + MAP for each of the NM affinities
    reassociated    (N + M)DC
    sorted          (N + M)D + SORTED for each of the (N + M)C values carried;  + LAUNCHES for its many small steps

each times the batch; in half precision re-association costs HALF of that, and a map of softmax is kept only where it is
tiny, since the definition computes in float32. The dot product and concatenation take the cheaper one. Softmax has no cheaper sum: there the
definition is taken while the N×M map is small enough to be worth keeping, and `scaled_dot_product_attention` above,
or on the CPU the tiles, whose products are faster there than the fused kernel's: always in bf16, and in float32 where
D + C is large and there will be a backward pass.

The CPU constants are fitted to forward + backward in float32 (docs/math.md has the table and where the rule loses);
those for accelerators are reasoned from bandwidth and launch time there, not measured.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from nlnet.ops.reference import operator_of
from nlnet.ops.tiled import kept_rows, largest_tile
from nlnet.products import ONEDNN

ALGORITHMS = {
    "softmax": ("definition", "tiled", "sdpa"),
    "dot_product": ("definition", "reassociated"),
    "concatenation": ("definition", "sorted"),
}
"""The algorithms that serve each operator."""


@dataclass(frozen=True)
class Rates:
    """Prices in multiply-adds, and the largest map (in affinities, the whole batch) that softmax keeps."""

    map: float
    sorted: float
    launches: float
    kept_map: int
    kept_half: int
    """The same for bf16 and fp16, which the definition computes in float32."""
    tiles: int | None
    """Affinities of one item from which softmax may be computed by tiles, if ever."""
    wide: int
    """D + C from which tiles of float32 are worth it, in training."""
    half: float
    """A product of bf16 or fp16 for each of float32, in which the definition computes whatever it is given."""


CPU = Rates(
    map=10.0,
    sorted=100.0,
    launches=20e6,
    kept_map=3 << 20,
    kept_half=1 << 16,
    tiles=None if ONEDNN is None else 1 << 20,
    wide=256,
    half=0.45,
)
ACCELERATOR = Rates(
    map=1000.0, sorted=4000.0, launches=20e9, kept_map=0, kept_half=0, tiles=None, wide=0, half=0.5
)


@dataclass(frozen=True)
class Choice:
    """What `auto` picks and why; `macs` (forward) and `bytes` (the most held beyond inputs and output, forward and
    backward, an estimate) of every algorithm that serves the operator."""

    algorithm: str
    reason: str
    macs: dict[str, int]
    bytes: dict[str, int]


def choose_algorithm(
    pairwise: str,
    *,
    batch: int,
    queries: int,
    keys: int,
    compared: int,
    carried: int,
    dtype: torch.dtype,
    device: str | torch.device,
    backward: bool = True,
) -> Choice:
    """The algorithm for theta (batch, queries, compared), phi (batch, keys, compared), g (batch, keys, carried).

    `backward` says whether gradients will be asked for.
    Plain arithmetic on plain numbers, remembered. Raises ValueError for an unknown pairwise.
    """
    operator = operator_of(pairwise)
    kind = torch.device(device).type
    return _choose(operator, batch, queries, keys, compared, carried, dtype, kind, backward)


def default_algorithm(operator: str) -> str:
    """What `auto` means while torch.compile or torch.export traces, when sizes may be symbols: the linear memory."""
    return {"softmax": "sdpa", "dot_product": "reassociated", "concatenation": "sorted"}[operator]


def worth_tiling(
    queries: int, keys: int, width: int, dtype: torch.dtype, *, backward: bool, rates: Rates = CPU
) -> bool:
    """Whether the tiles of softmax are faster than the fused kernel; `width` is D + C."""
    if rates.tiles is None or queries * keys < rates.tiles:
        return False
    return dtype == torch.bfloat16 or (dtype == torch.float32 and backward and width >= rates.wide)


@lru_cache(maxsize=4096)
def _choose(
    operator: str,
    batch: int,
    queries: int,
    keys: int,
    compared: int,
    carried: int,
    dtype: torch.dtype,
    device: str,
    backward: bool,
) -> Choice:
    rates = CPU if device == "cpu" else ACCELERATOR
    itemsize = dtype.itemsize
    macs = _macs(operator, batch, queries, keys, compared, carried)
    held = _bytes(operator, batch, queries, keys, compared, carried, itemsize)
    affinities = batch * queries * keys
    half = itemsize < 4
    if operator == "softmax":
        kept = rates.kept_half if half else rates.kept_map
        algorithm, verdict = "definition", "keeping it is cheaper"
        if affinities > kept:
            by_tiles = worth_tiling(queries, keys, compared + carried, dtype, backward=backward, rates=rates)
            algorithm = "tiled" if by_tiles else "sdpa"
            verdict = f"making it again is cheaper, {'by tiles' if by_tiles else 'by the fused kernel'}"
        reason = f"softmax on {device}: the map has {affinities:,} affinities, {kept:,} are worth keeping: {verdict}"
        return Choice(algorithm, reason, macs, held)
    fast = default_algorithm(operator)
    cost = {"definition": macs["definition"] + rates.map * affinities, fast: float(macs[fast])}
    if fast == "reassociated" and half:
        cost[fast] *= rates.half
    if fast == "sorted":
        cost[fast] += rates.sorted * batch * (queries + keys) * carried + rates.launches
    algorithm = min(cost, key=lambda name: cost[name])
    prices = " against ".join(
        f"{cost[name] / 1e6:,.1f} M for {name}" for name in sorted(cost, key=lambda n: cost[n])
    )
    return Choice(algorithm, f"{operator} on {device}, in multiply-adds: {prices}", macs, held)


def _macs(operator: str, batch: int, queries: int, keys: int, compared: int, carried: int) -> dict[str, int]:
    pairs, rows = batch * queries * keys, batch * (queries + keys)
    if operator == "concatenation":
        scores = rows * compared
        return {"definition": scores + pairs * carried, "sorted": scores + 2 * rows * carried}
    whole = pairs * (compared + carried)
    if operator == "softmax":
        return dict.fromkeys(ALGORITHMS["softmax"], whole)
    return {"definition": whole, "reassociated": rows * compared * carried}


def _bytes(
    operator: str, batch: int, queries: int, keys: int, compared: int, carried: int, itemsize: int
) -> dict[str, int]:
    whole = 2 * batch * queries * keys * itemsize
    sums = max(itemsize, 4)
    gradients = batch * keys * (compared + carried) * sums
    upcast = gradients if itemsize < sums else 0
    if operator == "softmax":
        tile = min(batch * queries * keys, largest_tile(keys))
        kept = batch * keys * kept_rows(queries, keys, compared + carried)
        padded = batch * (queries + 2 * keys) * abs(compared - carried) * itemsize
        return {
            "definition": whole,
            "tiled": 2 * tile * sums + kept * itemsize + gradients + upcast,
            "sdpa": batch * queries * 4 + padded,
        }
    if operator == "dot_product":
        return {"definition": whole, "reassociated": 2 * batch * compared * carried * itemsize}
    tables = 4 * batch * (keys + 1) * carried * sums
    indices = 12 * batch * (queries + keys) * 8
    return {"definition": whole, "sorted": tables + indices + upcast}
