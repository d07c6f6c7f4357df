"""Writing a network's weights as another project's file, where that project has this network.

A file of weights is only worth something to a network that computes the same function from them; so the function
is compared first, and a network that the project cannot build is refused with the point in which it differs.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nlnet.block import NonLocalBlock
from nlnet.models.caffe2_files import write_blobs
from nlnet.models.control import ResidualControl
from nlnet.models.inflate import WeightsError
from nlnet.models.resnet import MaxPool, VideoResNet
from nlnet.models.sources import SOURCES
from nlnet.norms import FrozenAffine
from nlnet.surgery import nonlocal_blocks

FORMATS = ("caffe2", "caffe2_flat", "slowfast", "pytorchvideo", "mmaction2", "torchvision")


def write_weights(model: VideoResNet, path: Path, form: str) -> None:
    """Write `model`'s weights as `form`, one of `FORMATS`.

    "caffe2" is the release's training checkpoint {"blobs": …}, "caffe2_flat" what its converters write; both hold
    a learning rate and an iteration count of 0, without which its loader stops. "slowfast" and "mmaction2" keep a
    few lines of configuration beside the weights that say what the keys cannot.

    Raises:
        WeightsError: an unknown form, or a network that the project cannot express, with the reason.
    """
    if form not in FORMATS:
        raise WeightsError(f"format: got {form!r}, expected one of {', '.join(FORMATS)}")
    reason = refusal(model, form)
    if reason is not None:
        raise WeightsError(f"{SOURCES[form.removesuffix('_flat')].title} has no such network: {reason}")
    state = model.state_dict()
    if form.startswith("caffe2"):
        weights = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        blobs: dict[str, Tensor | int] = {**SOURCES["caffe2"].keymaps[0].write(weights)}
        write_blobs(path, blobs | {"model_iter": 0, "lr": torch.tensor(0.0)}, nested=form == "caffe2")
    else:
        torch.save(_torch_file(model, state, form), path)


def _torch_file(model: VideoResNet, state: Mapping[str, Tensor], form: str) -> dict[str, object]:
    flat = is_2d(model) and form in ("mmaction2", "torchvision")
    weights = {
        key: (value.squeeze(2) if flat and value.ndim == 5 else value).detach().cpu().contiguous()
        for key, value in state.items()
    }
    pooled = not isinstance(model.pool2, nn.Identity)
    blocks = list(nonlocal_blocks(model).values())
    if form == "pytorchvideo":
        return {"model_state": SOURCES[form].keymaps[0 if pooled else 1].write(weights)}
    if form == "slowfast":
        named = SOURCES[form].keymaps[0].write(weights)
        return {
            "epoch": 0,
            "model_state": named,
            "optimizer_state": {},
            "cfg": _slowfast_configuration(model),
        }
    if form == "mmaction2":
        subsampled = all(block.subsample for block in blocks)
        weights = {
            key: value.view(1, -1, 1, 1) if key.endswith("w_f") else value for key, value in weights.items()
        }
        named = SOURCES[form].keymaps[0 if subsampled else 1].write(weights)
        return {"meta": {"config": _mmaction2_configuration(model)}, "state_dict": named}
    return dict(SOURCES[form].keymaps[0].write(weights))


def _slowfast_configuration(model: VideoResNet) -> str:
    arch = ("c2d" if is_2d(model) else "i3d") + ("_nopool" if isinstance(model.pool2, nn.Identity) else "")
    text = f"MODEL:\n  ARCH: {arch}\n"
    blocks = nonlocal_blocks(model)
    if blocks:
        kind = {"embedded_gaussian": "softmax", "dot_product": "dot_product"}[
            next(iter(blocks.values())).pairwise
        ]
        groups = [
            max((b.groups for p, b in blocks.items() if p.startswith(f"layer{n}.")), default=1)
            for n in (1, 2, 3, 4)
        ]
        text += (
            "NONLOCAL:\n  GROUP:\n" + "".join(f"  - - {n}\n" for n in groups) + f"  INSTANTIATION: {kind}\n"
        )
    return text


def _mmaction2_configuration(model: VideoResNet) -> str:
    if is_2d(model):
        return "Recognizer2D\n" if isinstance(model.pool2, nn.Identity) else "Recognizer3D C2D\n"
    assert isinstance(model.pool1, MaxPool)
    text = f"conv1_stride_t={model.conv1.stride[0]}, pool1_stride_t={model.pool1.stride[0]}"
    for block in list(nonlocal_blocks(model).values())[:1]:
        scaled = block.pairwise == "embedded_gaussian" and block.scale != 1.0
        text += f", non_local_cfg=dict(use_scale={scaled}, mode='{block.pairwise}')"
    return text + "\n"


def is_2d(model: VideoResNet) -> bool:
    """Whether no kernel looks along time."""
    return all(value.shape[2] == 1 for value in model.state_dict().values() if value.ndim == 5)


def refusal(model: VideoResNet, form: str) -> str | None:
    """Why the project of `form` cannot build this network; None where it can."""
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
        reason = _refused_block(path, block, form)
        if reason is not None:
            return f"{path.removesuffix('.nonlocal_block')}: {reason}"
    return None


def _refused_parts(model: VideoResNet, form: str) -> str | None:
    modules = list(model.modules())
    if any(isinstance(module, ResidualControl) for module in modules):
        return "it has no residual blocks in the place of non-local ones"
    affine = any(isinstance(module, FrozenAffine) for module in modules)
    if affine and not form.startswith("caffe2"):
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
        "pytorchvideo": padded,
        "mmaction2": MaxPool((1, 3, 3), (stride, 2, 2), (0, 1, 1)),
        "torchvision": MaxPool(model.pool1.kernel, model.pool1.stride, (0, 1, 1)),
    }.get(form, MaxPool((stride, 3, 3), (stride, 2, 2)))
    if form == "mmaction2" and is_2d(model):
        wanted = padded if nopool else MaxPool((1, 3, 3), (1, 2, 2))
    if model.pool1.extra_repr() != wanted.extra_repr():
        return f"{mine}, expected {wanted.extra_repr()}"
    unstrided = form in ("slowfast", "pytorchvideo") or (form == "mmaction2" and is_2d(model))
    if unstrided and model.conv1.stride[0] != 1:
        return f"conv1 has stride {model.conv1.stride[0]} in time, expected 1 (variant 8x8 or 32x4)"
    if isinstance(model.pool2, MaxPool) and model.pool2.kernel != (2, 1, 1):
        return f"pool2 has kernel {model.pool2.kernel}, expected (2, 1, 1)"
    if nopool and (form.startswith("caffe2") or (form == "mmaction2" and not is_2d(model))):
        return "it has a pool2"
    return None


def _refused_block(path: str, block: NonLocalBlock, form: str) -> str | None:
    mmcv = form == "mmaction2"
    if block.axis != "spacetime":
        return f"axis {block.axis!r}, expected 'spacetime'"
    if block.pairwise not in ("embedded_gaussian", "dot_product") and not mmcv:
        return f"pairwise {block.pairwise!r}, expected 'embedded_gaussian' or 'dot_product'"
    if not block.subsample and not mmcv:
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
    if block.norm_kind != "batch" and not form.startswith("caffe2"):
        return f"norm {block.norm_kind!r}, expected 'batch'"
    if block.norm_kind not in ("batch", "affine", "none"):
        return f"norm {block.norm_kind!r}, expected batch, affine or none"
    if block.out_bias != (not mmcv):
        return f"W_z {'has a' if block.out_bias else 'has no'} bias, expected {'none' if mmcv else 'one'}"
    if block.groups != 1 and (mmcv or not path.startswith("layer2.")):
        return f"{block.groups} temporal groups, expected 1"
    return None
