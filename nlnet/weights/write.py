"""Writing a network's weights as another project's file, where that project has this network.

A file of weights is only worth something to a network that computes the same function from them; so the function
is compared first (`nlnet.weights.export_limits`), and a network that the project cannot build is refused.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nlnet.errors import WeightsError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import MaxPool, VideoResNet
from nlnet.weights.export_limits import PICKLES, is_2d, refusal
from nlnet.weights.formats.caffe2 import write_blobs
from nlnet.weights.projects.slowfast import slowfast_configuration
from nlnet.weights.projects.table import SOURCES

FORMATS = ("caffe2", "caffe2_flat", "slowfast_pkl", "slowfast", "pytorchvideo", "mmaction2", "torchvision")


def write_weights(model: VideoResNet, path: Path, form: str, *, frames: int | None = None) -> None:
    """Write `model`'s weights as `form`, one of `FORMATS`.

    "caffe2" is the release's training checkpoint {"blobs": …}, "caffe2_flat" what its converters write; both hold
    a learning rate and an iteration count of 0, without which its loader stops. "slowfast_pkl" is the former under
    PySlowFast's architecture, which the file does not say. "slowfast" and "mmaction2" keep a few lines of
    configuration beside the weights that say what the keys cannot.

    Args:
        frames: of the clips that the network is for, where the project's function depends on it (frozen norms).

    Warns:
        UserWarning: a file that must be read with an option, since nothing in it tells the dot product from the
            embedded Gaussian.

    Raises:
        WeightsError: an unknown form, or a network that the project cannot express, with the reason.
    """
    if form not in FORMATS:
        raise WeightsError(f"format: got {form!r}, expected one of {', '.join(FORMATS)}")
    reason = refusal(model, form, frames)
    if reason is not None:
        raise WeightsError(f"{SOURCES[form.removesuffix('_flat')].title} has no such network: {reason}")
    state = model.state_dict()
    if form not in PICKLES:
        torch.save(_torch_file(model, state, form), path)
        return
    weights = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    blobs: dict[str, Tensor | int] = {**SOURCES[form.removesuffix("_flat")].keymaps[0].write(weights)}
    write_blobs(path, blobs | {"model_iter": 0, "lr": torch.tensor(0.0)}, nested=form != "caffe2_flat")
    if any(block.pairwise == "dot_product" for block in nonlocal_blocks(model).values()):
        warnings.warn(
            "nothing in the file says that its blocks are dot products: read it with pairwise=dot_product",
            stacklevel=2,
        )


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
            "cfg": slowfast_configuration(model, flat=is_2d(model)),
        }
    if form == "mmaction2":
        subsampled = all(block.subsample for block in blocks)
        weights = {
            key: value.view(1, -1, 1, 1) if key.endswith("w_f") else value for key, value in weights.items()
        }
        named = SOURCES[form].keymaps[0 if subsampled else 1].write(weights)
        return {"meta": {"config": _mmaction2_configuration(model)}, "state_dict": named}
    return dict(SOURCES[form].keymaps[0].write(weights))


def _mmaction2_configuration(model: VideoResNet) -> str:
    if is_2d(model):
        return "Recognizer2D\n" if isinstance(model.pool2, nn.Identity) else "Recognizer3D C2D\n"
    assert isinstance(model.pool1, MaxPool)
    text = f"conv1_stride_t={model.conv1.stride[0]}, pool1_stride_t={model.pool1.stride[0]}"
    text += ", with_pool2=False" if isinstance(model.pool2, nn.Identity) else ""
    for block in list(nonlocal_blocks(model).values())[:1]:
        scaled = block.pairwise == "embedded_gaussian" and block.scale != 1.0
        text += f", non_local_cfg=dict(use_scale={scaled}, mode='{block.pairwise}')"
    return text + "\n"
