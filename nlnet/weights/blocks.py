"""State dicts of other projects' standalone non-local blocks, read into a `NonLocalBlock` and written back.

A block is recognised by its keys (`nlnet.weights.block_projects`). What they show (f in part, channels, axes, norm,
in two projects the pooling) is read off; what they cannot is the project's default or one of `options`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from nlnet.block import NonLocalBlock
from nlnet.block_options import CONVENTIONS
from nlnet.errors import WeightsError, listed
from nlnet.ops.reference import OPERATORS, PAIRWISE
from nlnet.weights.block_projects import PROJECTS, Project
from nlnet.weights.keymap import KeyMap, check_numbers
from nlnet.weights.projects.project import Settings

LAYOUTS = ((False, False), (False, True), (True, False), (True, True))
"""(norm, pool): the plain one first, so that a norm or a pool is assumed only where keys show it."""
GIVEN = ("pairwise", "subsample", "scale", "groups")
"""Options that keys may leave open."""


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """A block's weights, in our names."""

    tensors: dict[str, Tensor]
    source: str
    """A name of `PROJECTS`."""
    settings: Settings
    """Options of `NonLocalBlock` with the reason of each."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings' values."""
        return {name: value for name, (value, _) in self.settings.items()}

    def build(self) -> NonLocalBlock:
        """The block with these weights, in their dtype (the widest of them)."""
        dtypes = [value.dtype for value in self.tensors.values() if value.is_floating_point()]
        block = NonLocalBlock(**self.options).to(reduce(torch.promote_types, dtypes))
        block.load_state_dict(self.tensors)
        return block


def read_block(
    state: Mapping[str, Tensor],
    *,
    prefix: str = "",
    source: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> BlockWeights:
    """Read the state dict of a standalone block of any project in `PROJECTS`.

    Args:
        state: the block's state dict, or that of a network around it.
        prefix: where the block is in that network ("backbone.nl1."); other keys are left alone.
        source: the project, where keys do not say it: PySlowFast and PyTorchVideo agree on every name but the
            norm's, and without a norm the first is taken.
        options: known better than from the keys: `pairwise` (embedded Gaussian or dot product, else the former),
            `subsample` (PySlowFast's pool of 1×2×2, else there; PyTorchVideo's, else not), `scale` (1.0 for mmcv's
            use_scale=False), `groups` (PySlowFast's NONLOCAL.GROUP). PySlowFast's norm_type="layernorm", which no
            configuration of it uses, has no keys and is taken for no norm.

    Raises:
        WeightsError: keys of no project; keys left over or missing, listed; shapes that do not fit; an unknown
            source or option, or one that the keys contradict.
    """
    given = dict(options or {})
    if source is not None and source not in PROJECTS:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(PROJECTS)}")
    unknown = [name for name in given if name not in GIVEN]
    if unknown:
        raise WeightsError(f"option {unknown[0]!r}: expected one of {', '.join(GIVEN)}")
    mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    found, norm, pool = _recognise(mine, source, prefix)
    names = PROJECTS[found].names(norm=norm, pool=pool)
    tensors, left = names.read(mine)
    if "w_f" in tensors:
        tensors["w_f"] = tensors["w_f"].reshape(-1)  # theirs is a 1×1 convolution of the N×M map
    if "norm.running_mean" in tensors:  # files older than the counter do not have it
        tensors.setdefault("norm.num_batches_tracked", torch.tensor(0))
    settings = _settings(tensors, PROJECTS[found], norm=norm, pool=pool, given=given)
    _check(tensors, left, settings, names, PROJECTS[found].title)
    check_numbers(tensors, names.pairs)
    return BlockWeights(tensors=tensors, source=found, settings=settings)


def write_block(block: NonLocalBlock, source: str) -> dict[str, Tensor]:
    """The state dict that the class of project `source` takes, for a block that it can express.

    The keys carry neither the pairwise function nor scale nor pooling of PySlowFast and PyTorchVideo: construct
    their class with the block's own.

    Raises:
        WeightsError: an unknown source; a block that computes what the project's class cannot, with every reason.
    """
    if source not in PROJECTS:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(PROJECTS)}")
    project = PROJECTS[source]
    reasons = _inexpressible(block, project)
    if reasons:
        raise WeightsError(f"{project.title} has no such block: {'; '.join(reasons)}")
    tensors = {key: value.detach().clone() for key, value in block.state_dict().items()}
    if "w_f" in tensors:
        tensors["w_f"] = tensors["w_f"].reshape(1, -1, 1, 1)
    return project.names(norm=block.norm_kind != "none", pool=block.pool is not None).write(tensors)


def _recognise(state: Mapping[str, Tensor], source: str | None, prefix: str) -> tuple[str, bool, bool]:
    """The project, norm and pool whose names explain most keys; the first of equals."""
    fits = {
        (name, norm, pool): sum(key in project.names(norm=norm, pool=pool).ours for key in state)
        for name, project in PROJECTS.items()
        if source in (None, name)
        for norm, pool in LAYOUTS
    }
    best = max(fits, key=lambda layout: fits[layout])
    if fits[best] == 0:
        titles = ", ".join(project.title for project in PROJECTS.values())
        where = f" under {prefix!r}" if prefix else ""
        raise WeightsError(
            f"not a non-local block: got {listed(state) or 'no keys'}{where}, expected those of {titles}"
        )
    return best


def _settings(
    tensors: Mapping[str, Tensor], project: Project, *, norm: bool, pool: bool, given: Mapping[str, Any]
) -> Settings:
    """Every option of the block, from the keys, the project, and what is given."""
    g = tensors.get("g.weight")
    if g is None or g.ndim - 2 not in project.axes:
        axes = ", ".join(str(axis + 2) for axis in project.axes)
        got = "none" if g is None else f"shape {tuple(g.shape)}"
        raise WeightsError(f"{project.title}: weight of g: got {got}, expected one with {axes} axes")
    pairwise, choice = _pairwise(tensors, given.get("pairwise"))
    settings: Settings = {
        "in_channels": (g.shape[1], "the shape of g"),
        "inner_channels": (g.shape[0], "the shape of g"),
        "ndim": (g.ndim - 2, "the shape of g"),
        "pairwise": (pairwise, choice),
        "subsample": _subsample(project, pool, given.get("subsample")),
        "norm": ("batch", "the keys have a norm") if norm else ("none", "the keys have no norm"),
        "convention": (project.convention, f"{project.title}: {project.why}"),
        "out_bias": (project.out_bias(norm=norm), f"{project.title}: {project.why}"),
    }
    scales = project.scales(pairwise, g.shape[0])
    if "scale" in given:
        settings["scale"] = (given["scale"], "given")
    elif len(scales) > 1:
        settings["scale"] = (scales[0], "assumed: use_scale is on by default, or give scale=1.0")
    if "groups" in given:
        settings["groups"] = (given["groups"], "given")
    return settings


def _pairwise(tensors: Mapping[str, Tensor], given: str | None) -> tuple[str, str]:
    shown: tuple[str, ...]
    if "w_f" in tensors:
        shown, why = ("concatenation",), "the keys have w_f"
    elif not any(key.startswith(("theta.", "phi.")) for key in tensors):
        shown, why = ("gaussian",), "the keys have neither θ nor φ"
    else:
        shown, why = ("embedded_gaussian", "dot_product"), "assumed: or give pairwise=dot_product"
    if given not in (None, *shown):
        raise WeightsError(f"pairwise: got {given!r}, but the keys are those of {' or '.join(shown)}")
    return (shown[0], why) if given is None else (given, "given")


def _subsample(project: Project, pool: bool, given: bool | None) -> tuple[bool, str]:
    if project.pools is None:
        if given not in (None, pool):
            raise WeightsError(f"subsample: got {given}, but by its keys the block {_pools(pool)}")
        return pool, f"by its keys the block {_pools(pool)}"
    if given is not None:
        return given, "given"
    assumed = f"assumed: {project.title} by default {_pools(project.pools)}"
    return project.pools, f"{assumed}, or give subsample={str(not project.pools).lower()}"


def _pools(pool: bool) -> str:
    return "pools its keys" if pool else "does not pool its keys"


def _check(
    tensors: Mapping[str, Tensor], left: tuple[str, ...], settings: Settings, names: KeyMap, title: str
) -> None:
    """Refuse keys that are left over or missing, and shapes that do not fit; all by their names."""
    shapes = _shapes({name: value for name, (value, _) in settings.items()})
    extra = [*left, *(names.pairs[key] for key in tensors if key not in shapes)]
    missing = [names.pairs[key] for key in shapes if key not in tensors]
    wrong = [
        f"{names.pairs[key]}: got {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if extra or missing or wrong:
        raise WeightsError(
            f"read as a block of {title}, the keys do not fit."
            + (f"\n  left over: {listed(extra)}" if extra else "")
            + (f"\n  missing: {listed(missing)}" if missing else "")
            + (f"\n  shapes: {'; '.join(wrong)}" if wrong else "")
        )


def _shapes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of every key that a block of these options has."""
    outer, inner, point = options["in_channels"], options["inner_channels"], (1,) * options["ndim"]
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("theta", "phi", "g") if PAIRWISE[options["pairwise"]].embeds else ("g",):
        shapes |= {f"{part}.weight": (inner, outer, *point), f"{part}.bias": (inner,)}
    shapes["W_z.weight"] = (outer, inner, *point)
    if options["out_bias"]:
        shapes["W_z.bias"] = (outer,)
    if OPERATORS[PAIRWISE[options["pairwise"]].operator].takes_weight:
        shapes["w_f"] = (2 * inner,)
    if options["norm"] == "batch":
        shapes |= {f"norm.{leaf}": (outer,) for leaf in ("weight", "bias", "running_mean", "running_var")}
        shapes["norm.num_batches_tracked"] = ()
    return shapes


def _inexpressible(block: NonLocalBlock, project: Project) -> list[str]:
    """Why the project's class cannot compute what the block does."""
    scales = project.scales(block.pairwise, block.inner_channels)
    ratio = max(1, block.in_channels // block.inner_channels)
    checks = {
        f"ndim {block.ndim}": block.ndim in project.axes,
        f"pairwise {block.pairwise}": block.pairwise in project.pairwise,
        f"axis {block.axis}": block.ndim < 3 or block.axis == "spacetime",
        f"groups {block.groups}": block.groups == 1,
        f"norm {block.norm_kind}": block.norm_kind in ("batch", "sync", "none"),
        f"pooling {block.pool_position} φ and g": block.pool is None
        or block.pool_position == CONVENTIONS[project.convention].pool_position,
        f"scale {block.scale:g}": any(math.isclose(block.scale, scale) for scale in scales),
        f"W_z {'with' if block.out_bias else 'without'} a bias": block.out_bias
        == project.out_bias(norm=block.norm_kind != "none"),
        f"{block.inner_channels} inner channels, not in_channels over a whole number": not project.whole_ratio
        or block.in_channels // ratio == block.inner_channels,
    }
    return [reason for reason, fits in checks.items() if not fits]
