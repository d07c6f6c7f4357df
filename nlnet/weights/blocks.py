"""Read state dicts of other projects' standalone non-local blocks into a `NonLocalBlock`, and write them back.

A block is recognised by its keys (`nlnet.weights.block_projects`). What these show (channels, dimensions, norm, in
part f, in two projects the pooling) is taken from them; the rest is the project's default or one of `options`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from nlnet.block import NonLocalBlock
from nlnet.block_options import CONVENTIONS
from nlnet.errors import WeightsError, listed
from nlnet.ops.reference import OPERATORS, PAIRWISE
from nlnet.weights.block_projects import BLOCK_PROJECTS, BlockProject
from nlnet.weights.keymap import KeyMap, check_values
from nlnet.weights.projects.project import Settings

LAYOUTS = ((False, False), (False, True), (True, False), (True, True))
"""(norm, pool): the plain one first, so that a norm or a pool is only assumed where keys show it."""
GIVEN = ("pairwise", "subsample", "scale", "groups")
"""Options that a caller may give, since keys may not show them."""


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """The weights of a block under our keys, and the options that build the block."""

    tensors: dict[str, Tensor] = field(repr=False)
    source: str
    """The project, a name of `BLOCK_PROJECTS`."""
    settings: Settings
    """Options of `NonLocalBlock`, each with the reason."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings without their reasons."""
        return {name: value for name, (value, _) in self.settings.items()}

    def build(self) -> NonLocalBlock:
        """The block with these weights, in the widest of their dtypes."""
        # a block in half precision may have a norm in float32, which must not lose digits
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
    """Read the state dict of a standalone non-local block of mmcv, AlexHex7, PySlowFast or PyTorchVideo.

        state = nlnet.write_block(nlnet.NonLocalBlock(64, ndim=2, convention="mmcv"), "mmcv")
        block = nlnet.read_block(state).build()

    Args:
        state: the block's state dict, or that of a network around it.
        prefix: where the block is in that network ("backbone.nl1."); other keys are ignored.
        source: the project, where keys do not tell it: "alexhex7", "mmcv", "slowfast" or "pytorchvideo". PySlowFast
            and PyTorchVideo differ in the norm's name only, and a block without a norm is taken for PySlowFast's.
        options: options that keys do not show: `pairwise` (embedded Gaussian or dot product; the former by default),
            `subsample` (on by default for PySlowFast, whose pool is 1×2×2, off for PyTorchVideo), `scale` (1.0 for
            mmcv's use_scale=False), `groups` (PySlowFast's NONLOCAL.GROUP). PySlowFast's norm_type="layernorm", which
            no configuration of it uses, has no keys and is read as no norm.

    Raises:
        WeightsError: keys of no project; unexpected or missing keys, listed; shapes that do not fit; an unknown
            source or option, or an option that the keys contradict.
    """
    given = dict(options or {})
    if source is not None and source not in BLOCK_PROJECTS:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(BLOCK_PROJECTS)}")
    unknown = [name for name in given if name not in GIVEN]
    if unknown:
        raise WeightsError(f"option {unknown[0]!r}: expected one of {', '.join(GIVEN)}")
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    name, norm, pool = _recognise(own, source, prefix)
    project = BLOCK_PROJECTS[name]
    names = project.names(norm=norm, pool=pool)
    tensors, left = names.read(own)
    if "w_f" in tensors:
        tensors["w_f"] = tensors["w_f"].reshape(-1)  # theirs is a 1×1 convolution of the N×M map
    if "norm.running_mean" in tensors:  # files of old versions of torch lack the counter
        tensors.setdefault("norm.num_batches_tracked", torch.tensor(0))
    settings = _settings(tensors, project, norm=norm, pool=pool, given=given)
    _check_keys_and_shapes(tensors, left, settings, names, project.title)
    check_values(tensors, names.pairs)
    return BlockWeights(tensors=tensors, source=name, settings=settings)


def write_block(block: NonLocalBlock, source: str) -> dict[str, Tensor]:
    """Return the state dict that the class of the project `source` loads, if it can compute what `block` does.

        block = nlnet.NonLocalBlock(64, ndim=2, convention="mmcv")
        state = nlnet.write_block(block, "mmcv")        # for mmcv.cnn.NonLocal2d(64)

    The keys of PySlowFast and PyTorchVideo do not hold the pairwise function, the scale and the pooling: construct
    their class with those of the block.

    Args:
        source: "alexhex7", "mmcv", "slowfast" or "pytorchvideo".

    Raises:
        WeightsError: an unknown source; a block that computes what the project's class cannot, with every reason.
    """
    if source not in BLOCK_PROJECTS:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(BLOCK_PROJECTS)}")
    project = BLOCK_PROJECTS[source]
    reasons = _export_limits(block, project)
    if reasons:
        raise WeightsError(f"{project.title} cannot build this block: {'; '.join(reasons)}")
    tensors = {key: value.detach().clone() for key, value in block.state_dict().items()}
    if "w_f" in tensors:
        tensors["w_f"] = tensors["w_f"].reshape(1, -1, 1, 1)
    return project.names(norm=block.norm_kind != "none", pool=block.pool is not None).write(tensors)


def _recognise(state: Mapping[str, Tensor], source: str | None, prefix: str) -> tuple[str, bool, bool]:
    """Return the project, norm and pool whose key names match most keys; ties go to the first."""
    fits = {
        (name, norm, pool): sum(key in project.names(norm=norm, pool=pool).ours for key in state)
        for name, project in BLOCK_PROJECTS.items()
        if source in (None, name)
        for norm, pool in LAYOUTS
    }
    best = max(fits, key=lambda layout: fits[layout])
    if fits[best] == 0:
        titles = ", ".join(project.title for project in BLOCK_PROJECTS.values())
        where = f" under {prefix!r}" if prefix else ""
        raise WeightsError(
            f"not a non-local block: got {listed(state) or 'no keys'}{where}, expected the keys of {titles}"
        )
    return best


def _settings(
    tensors: Mapping[str, Tensor], project: BlockProject, *, norm: bool, pool: bool, given: Mapping[str, Any]
) -> Settings:
    """All options of the block: from its state dict, the project, and what is given."""
    g = tensors.get("g.weight")
    if g is None or g.ndim - 2 not in project.ndims:
        axes = ", ".join(str(ndim + 2) for ndim in project.ndims)
        got = "none" if g is None else f"shape {tuple(g.shape)}"
        raise WeightsError(f"{project.title}: weight of g: got {got}, expected one with {axes} axes")
    pairwise, reason = _pairwise(tensors, given.get("pairwise"))
    settings: Settings = {
        "in_channels": (g.shape[1], "the shape of g"),
        "inner_channels": (g.shape[0], "the shape of g"),
        "ndim": (g.ndim - 2, "the shape of g"),
        "pairwise": (pairwise, reason),
        "subsample": _subsample(project, pool, given.get("subsample")),
        "norm": ("batch", "the state dict has a norm") if norm else ("none", "the state dict has no norm"),
        "convention": (project.convention, f"{project.title}: {project.why}"),
        "out_bias": (project.out_bias(norm=norm), f"{project.title}: {project.why}"),
    }
    scales = project.scales(pairwise, g.shape[0])
    if "scale" in given:
        settings["scale"] = (given["scale"], "given")
    elif len(scales) > 1:
        settings["scale"] = (scales[0], "assumed: use_scale is on by default; else give scale=1.0")
    if "groups" in given:
        settings["groups"] = (given["groups"], "given")
    return settings


def _pairwise(tensors: Mapping[str, Tensor], given: str | None) -> tuple[str, str]:
    """The pairwise function and its reason."""
    shown: tuple[str, ...]
    if "w_f" in tensors:
        shown, why = ("concatenation",), "the state dict has w_f"
    elif not any(key.startswith(("theta.", "phi.")) for key in tensors):
        shown, why = ("gaussian",), "the state dict has neither θ nor φ"
    else:  # the keys of these two are the same
        shown, why = ("embedded_gaussian", "dot_product"), "assumed; else give pairwise=dot_product"
    if given not in (None, *shown):
        raise WeightsError(f"pairwise: got {given!r}, but the state dict is of {' or '.join(shown)}")
    return (shown[0], why) if given is None else (given, "given")


def _subsample(project: BlockProject, pool: bool, given: bool | None) -> tuple[bool, str]:
    """Whether keys are pooled, and the reason; `pool` is what the state dict shows, if it shows it."""
    if project.pools is None:
        if given not in (None, pool):
            raise WeightsError(
                f"subsample: got {given}, but the state dict is of a block that {_pools(pool)}"
            )
        return pool, f"the state dict is of a block that {_pools(pool)}"
    if given is not None:
        return given, "given"
    assumed = f"assumed: {project.title} by default {_pools(project.pools)}"
    return project.pools, f"{assumed}; else give subsample={str(not project.pools).lower()}"


def _pools(pool: bool) -> str:
    """The words for whether a block pools its keys, to end a sentence with."""
    return "pools its keys" if pool else "does not pool its keys"


def _check_keys_and_shapes(
    tensors: Mapping[str, Tensor], left: tuple[str, ...], settings: Settings, names: KeyMap, title: str
) -> None:
    """Check that the state dict has the keys and shapes of a block with these options, no more and no less.

    Raises:
        WeightsError: with every key that is unexpected, missing or of another shape, by the project's names.
    """
    shapes = _shapes({name: value for name, (value, _) in settings.items()})
    # messages have the project's keys, which the user finds in the file
    extra = [*left, *(names.pairs[key] for key in tensors if key not in shapes)]
    missing = [names.pairs[key] for key in shapes if key not in tensors]
    wrong = [
        f"{names.pairs[key]}: got {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if extra or missing or wrong:
        raise WeightsError(
            f"the state dict looks like a block of {title}, but its keys or shapes differ."
            + (f"\n  unexpected: {listed(extra)}" if extra else "")
            + (f"\n  missing: {listed(missing)}" if missing else "")
            + (f"\n  shapes: {'; '.join(wrong)}" if wrong else "")
        )


def _shapes(options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Key → shape in the state dict of a block with these options."""
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


def _export_limits(block: NonLocalBlock, project: BlockProject) -> list[str]:
    """Every reason why the project's class cannot compute what the block does."""
    scales = project.scales(block.pairwise, block.inner_channels)
    # the reduction that gives our d, if the class can have it: it computes d = C // ratio
    ratio = max(1, block.in_channels // block.inner_channels)
    checks = {
        f"ndim {block.ndim}": block.ndim in project.ndims,
        f"pairwise {block.pairwise}": block.pairwise in project.pairwise,
        f"axis {block.axis}": block.ndim < 3 or block.axis == "spacetime",
        f"groups {block.groups}": block.groups == 1,
        f"norm {block.norm_kind}": block.norm_kind in ("batch", "sync", "none"),
        f"pooling {block.pool_position} φ and g": block.pool is None
        or block.pool_position == CONVENTIONS[project.convention].pool_position,
        f"scale {block.scale:g}": any(math.isclose(block.scale, scale) for scale in scales),
        f"W_z {'with' if block.out_bias else 'without'} a bias": block.out_bias
        == project.out_bias(norm=block.norm_kind != "none"),
        f"{block.inner_channels} inner channels, which is not in_channels divided by an integer": (
            not project.whole_ratio or block.in_channels // ratio == block.inner_channels
        ),
    }
    return [reason for reason, fits in checks.items() if not fits]
