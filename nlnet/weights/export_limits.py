"""Why another project cannot build one of our networks: the points in which its function differs from theirs."""

from torch import nn

from nlnet.block import NonLocalBlock
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.layers.norms import FrozenAffine
from nlnet.models.control import ResidualControl
from nlnet.models.resnet import MaxPool, VideoResNet
from nlnet.weights.projects.caffe2 import release_groups

PICKLES = ("caffe2", "caffe2_flat", "slowfast_pkl")
"""Formats with the release's names, which say nothing beside the weights."""
RELEASE = ("caffe2", "caffe2_flat")
LONG_GROUPS = 4
"""Of res3 in the release's two long clips, 32x4 and 128x1: 16 frames in runs of 4."""


def is_2d(model: VideoResNet) -> bool:
    """Whether no kernel looks along time."""
    return all(value.shape[2] == 1 for value in model.state_dict().values() if value.ndim == 5)


def refusal(model: VideoResNet, form: str, frames: int | None) -> str | None:
    """Why the project of `form` cannot build this network for clips of `frames`; None where it can."""
    for reason in (_refused_parts(model, form), _refused_pools(model, form)):
        if reason is not None:
            return reason
    blocks = nonlocal_blocks(model)
    if blocks and (form in ("pytorchvideo", "torchvision") or (form == "mmaction2" and is_2d(model))):
        return "its networks have no non-local blocks"
    kinds = {(block.pairwise, block.subsample, block.scale == 1.0) for block in blocks.values()}
    if len(kinds) > 1:
        return "its non-local blocks are all of one kind"
    for path, block in blocks.items():
        reason = _refused_block(block, form) or _refused_groups(path, block, model, form, frames)
        if reason is not None:
            return f"{path.removesuffix('.nonlocal_block')}: {reason}"
    return None


def _refused_parts(model: VideoResNet, form: str) -> str | None:
    modules = list(model.modules())
    if any(isinstance(module, ResidualControl) for module in modules):
        return "it has no residual blocks in the place of non-local ones"
    affine = any(isinstance(module, FrozenAffine) for module in modules)
    if affine and form not in RELEASE:
        return "its norms are batch norms, not frozen affine layers"
    if not affine and not hasattr(model.bn1, "running_mean"):
        return f"its norms are batch norms, got {type(model.bn1).__name__}"
    if model.get_submodule("layer1.0.conv2").get_parameter("weight").shape[2] > 1 and form != "mmaction2":
        return "its 3×3 kernels do not reach along time (I3D 3×3×3)"
    if form == "torchvision" and not is_2d(model):
        return "its kernels have no axis of time; this network is an I3D"
    return None


def _refused_pools(model: VideoResNet, form: str) -> str | None:
    if not isinstance(model.pool1, MaxPool):
        return "it has a pool1"
    stride, nopool = model.pool1.stride[0], isinstance(model.pool2, nn.Identity)
    mine = (
        f"pool1 has kernel {model.pool1.kernel}, stride {model.pool1.stride}, padding {model.pool1.padding}"
    )
    padded = MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1))
    wanted = {
        "slowfast": padded,
        "slowfast_pkl": padded,
        "pytorchvideo": padded,
        "mmaction2": MaxPool((1, 3, 3), (stride, 2, 2), (0, 1, 1)),
        "torchvision": MaxPool(model.pool1.kernel, model.pool1.stride, (0, 1, 1)),
    }.get(form, MaxPool((stride, 3, 3), (stride, 2, 2)))
    if form == "mmaction2" and is_2d(model):
        wanted = padded if nopool else MaxPool((1, 3, 3), (1, 2, 2))
    if model.pool1.extra_repr() != wanted.extra_repr():
        return f"{mine}, expected {wanted.extra_repr()}"
    unstrided = form in ("slowfast", "slowfast_pkl", "pytorchvideo") or (form == "mmaction2" and is_2d(model))
    if unstrided and model.conv1.stride[0] != 1:
        return f"conv1 has stride {model.conv1.stride[0]} in time, expected 1 (variant 8x8 or 32x4)"
    if isinstance(model.pool2, MaxPool) and model.pool2.kernel != (2, 1, 1):
        return f"pool2 has kernel {model.pool2.kernel}, expected (2, 1, 1)"
    if nopool and (form in RELEASE or (form == "slowfast_pkl" and not is_2d(model))):
        return "it has a pool2"
    if form == "slowfast_pkl" and is_2d(model) and not nopool:
        return "its C2D has no pool2"
    return None


def _refused_block(block: NonLocalBlock, form: str) -> str | None:
    mmcv = form == "mmaction2"
    if block.axis != "spacetime":
        return f"axis {block.axis!r}, expected 'spacetime'"
    if block.pairwise not in ("embedded_gaussian", "dot_product") and not mmcv:
        return f"pairwise {block.pairwise!r}, expected 'embedded_gaussian' or 'dot_product'"
    if not block.subsample and form in PICKLES:
        return "its keys are not pooled"
    position = "after" if mmcv else "before"
    if block.subsample and block.pool_position != position:
        return f"keys are pooled {block.pool_position} φ and g, expected {position}"
    scaled = block.inner_channels**-0.5
    allowed = (scaled, 1.0) if mmcv and block.pairwise == "embedded_gaussian" else (1.0,)
    if block.pairwise == "embedded_gaussian" and not mmcv:
        allowed = (scaled,)
    if not any(abs(block.scale - value) < 1e-12 for value in allowed):
        return f"scale {block.scale:.6g}, expected {' or '.join(f'{value:.6g}' for value in allowed)}"
    norms = ("batch", "sync", "affine", "none") if form in RELEASE else ("batch", "sync")
    if block.norm_kind not in norms:
        return f"norm {block.norm_kind!r}, expected {', '.join(norms[:-1])} or {norms[-1]}"
    if block.out_bias != (not mmcv):
        return f"W_z {'has a' if block.out_bias else 'has no'} bias, expected {'none' if mmcv else 'one'}"
    return None


def _refused_groups(
    path: str, block: NonLocalBlock, model: VideoResNet, form: str, frames: int | None
) -> str | None:
    """The release groups res3 where norms are frozen, by the clip; PySlowFast as its configuration says."""
    mine = f"{block.groups} temporal groups"
    res3 = path.startswith("layer2.")
    if form == "slowfast" and res3:
        return None
    if form == "slowfast_pkl" and block.groups != 1:
        return f"{mine}, which its files do not say"
    if not (form in RELEASE and res3):
        return None if block.groups == 1 else f"{mine}, expected 1"
    if not isinstance(model.bn1, FrozenAffine):
        return None if block.groups == 1 else f"{mine} with batch norms, expected 1"
    assert isinstance(model.pool1, MaxPool)
    if frames is None:
        return (
            None if block.groups == LONG_GROUPS else f"{mine}: give frames=, whether its clips are that short"
        )
    expected = release_groups(frames // (model.conv1.stride[0] * model.pool1.stride[0] * 2))
    return None if block.groups == expected else f"{mine}, expected {expected} for {frames} frames"
