"""Export limits: reasons why another project cannot build one of our networks."""

from torch import nn

from nlnet.block import NonLocalBlock
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.layers.norms import FrozenAffine
from nlnet.models.control import ResidualControl
from nlnet.models.resnet import MaxPool, VideoResNet
from nlnet.weights.projects.caffe2 import release_groups

PICKLES = ("caffe2", "caffe2_flat", "slowfast_pkl")
"""Formats with the release's names, which hold no configuration beside the weights."""
RELEASE = ("caffe2", "caffe2_flat")
LONG_GROUPS = 4
"""Groups of res3 in the release's two long clips, 32x4 and 128x1: 16 frames in groups of 4."""


def is_2d(model: VideoResNet) -> bool:
    """Whether every kernel spans a single frame."""
    return all(value.shape[2] == 1 for value in model.state_dict().values() if value.ndim == 5)


def export_limit(model: VideoResNet, form: str, frames: int | None) -> str | None:
    """The first reason why the project of format `form` cannot build this network; None if it can.

    `frames` is the number of frames of the clips that the network is for, if known.
    """
    for reason in (_limit_of_parts(model, form), _limit_of_pools(model, form)):
        if reason is not None:
            return reason
    blocks = nonlocal_blocks(model)
    if blocks and (form in ("pytorchvideo", "torchvision") or (form == "mmaction2" and is_2d(model))):
        return "its networks have no non-local blocks"
    # a configuration or an option on reading holds for all blocks of a network
    kinds = {(block.pairwise, block.subsample, block.scale == 1.0) for block in blocks.values()}
    if len(kinds) > 1:
        return "all non-local blocks of its networks have the same pairwise function, pooling and scale"
    for path, block in blocks.items():
        reason = _limit_of_block(block, form) or _limit_of_groups(path, block, model, form, frames)
        if reason is not None:
            return f"{path.removesuffix('.nonlocal_block')}: {reason}"
    return None


def _limit_of_parts(model: VideoResNet, form: str) -> str | None:
    """A reason in the residual control, the norms or the kernels; None without one."""
    modules = list(model.modules())
    if any(isinstance(module, ResidualControl) for module in modules):
        return "its networks have no residual control blocks"
    affine = any(isinstance(module, FrozenAffine) for module in modules)
    if affine and form not in RELEASE:
        return "its networks have batch norms, not frozen affine layers"
    if not affine and not hasattr(model.bn1, "running_mean"):
        return f"its networks have batch norms, got {type(model.bn1).__name__}"
    if model.get_submodule("layer1.0.conv2").get_parameter("weight").shape[2] > 1 and form != "mmaction2":
        return "its networks have no 3×3×3 kernels (I3D 3×3×3)"
    if form == "torchvision" and not is_2d(model):
        return "its networks have 2-D kernels, this one is an I3D"
    return None


def _limit_of_pools(model: VideoResNet, form: str) -> str | None:
    """A reason in pool1, pool2 or the strides in time; None without one."""
    if not isinstance(model.pool1, MaxPool):
        return "its networks have a pool1"
    stride, nopool = model.pool1.stride[0], isinstance(model.pool2, nn.Identity)
    mine = (
        f"pool1 has kernel {model.pool1.kernel}, stride {model.pool1.stride}, padding {model.pool1.padding}"
    )
    # the pool1 of each project, with our stride in time where the project leaves it open
    padded = MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1))  # that of a 2-D ResNet, on each frame
    wanted = {
        "slowfast": padded,
        "slowfast_pkl": padded,
        "pytorchvideo": padded,
        "mmaction2": MaxPool((1, 3, 3), (stride, 2, 2), (0, 1, 1)),
        "torchvision": MaxPool(model.pool1.kernel, model.pool1.stride, (0, 1, 1)),
    }.get(form, MaxPool((stride, 3, 3), (stride, 2, 2)))  # the release pads no pool
    if form == "mmaction2" and is_2d(model):
        wanted = padded if nopool else MaxPool((1, 3, 3), (1, 2, 2))
    if model.pool1.extra_repr() != wanted.extra_repr():
        return f"{mine}, expected {wanted.extra_repr()}"
    unstrided = form in ("slowfast", "slowfast_pkl", "pytorchvideo") or (form == "mmaction2" and is_2d(model))
    if unstrided and model.conv1.stride[0] != 1:
        return f"conv1 has stride {model.conv1.stride[0]} in time, expected 1 (variant 8x8 or 32x4)"
    if isinstance(model.pool2, MaxPool) and model.pool2.kernel != (2, 1, 1):
        return f"pool2 has kernel {model.pool2.kernel}, expected (2, 1, 1)"
    # a format without a configuration cannot say that pool2 is there or not: each network has one way
    if nopool and (form in RELEASE or (form == "slowfast_pkl" and not is_2d(model))):
        return "its networks have a pool2"
    if form == "slowfast_pkl" and is_2d(model) and not nopool:
        return "its C2D networks have no pool2"
    return None


def _limit_of_block(block: NonLocalBlock, form: str) -> str | None:
    """A reason in a non-local block other than its temporal groups; None without one."""
    mmcv = form == "mmaction2"
    if block.axis != "spacetime":
        return f"axis {block.axis!r}, expected 'spacetime'"
    if block.pairwise not in ("embedded_gaussian", "dot_product") and not mmcv:
        return f"pairwise {block.pairwise!r}, expected 'embedded_gaussian' or 'dot_product'"
    if not block.subsample and form in PICKLES:
        return "the block does not pool its keys, expected subsample=True"
    position = "after" if mmcv else "before"
    if block.subsample and block.pool_position != position:
        return f"keys are pooled {block.pool_position} φ and g, expected {position}"
    # mmcv leaves the scale of the embedded Gaussian open (use_scale); in the others it is 1/√d
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


def _limit_of_groups(
    path: str, block: NonLocalBlock, model: VideoResNet, form: str, frames: int | None
) -> str | None:
    """A reason in the temporal groups of a non-local block; None without one.

    The release has groups in res3 if norms are frozen, as many as the clip's frames make; PySlowFast has in res3 what
    its configuration says; all other blocks have one group.
    """
    mine = f"{block.groups} temporal groups"
    res3 = path.startswith("layer2.")
    if form == "slowfast" and res3:
        return None
    if form == "slowfast_pkl" and block.groups != 1:
        return f"{mine}, expected 1, since the file has no place for their number"
    if not (form in RELEASE and res3):
        return None if block.groups == 1 else f"{mine}, expected 1"
    if not isinstance(model.bn1, FrozenAffine):
        return None if block.groups == 1 else f"{mine} with batch norms, expected 1"
    assert isinstance(model.pool1, MaxPool)
    if frames is None:  # then the usual long clip is meant
        return (
            None
            if block.groups == LONG_GROUPS
            else f"{mine}, expected {LONG_GROUPS} for long clips; for others give frames="
        )
    expected = release_groups(frames // (model.conv1.stride[0] * model.pool1.stride[0] * 2))
    return None if block.groups == expected else f"{mine}, expected {expected} for {frames} frames"
