"""Write a network's weights as a file of another project, if that project can build the network.

Weights are only of use in a network that computes the same function from them. So the function is compared first
(`nlnet.weights.export_limits`), and a network that the project cannot build is an error.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nlnet.errors import WeightsError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet
from nlnet.weights.export_limits import PICKLES, export_limit, is_2d
from nlnet.weights.formats.caffe2 import write_blobs
from nlnet.weights.projects import PROJECTS
from nlnet.weights.projects.mmaction2 import mmaction2_configuration
from nlnet.weights.projects.slowfast_config import slowfast_configuration

FORMATS = ("caffe2", "caffe2_flat", "slowfast_pkl", "slowfast", "pytorchvideo", "mmaction2", "torchvision")


def write_weights(model: VideoResNet, path: Path | str, form: str, *, frames: int | None = None) -> None:
    """Write the weights of a network as a file that another project can read.

        model = nlnet.create_model("c2d_mini_nl1")
        nlnet.write_weights(model, "release.pkl", "caffe2")

    "caffe2" is the release's training checkpoint {"blobs": …}, "caffe2_flat" what its converters write; both hold
    a learning rate and an iteration count of 0, without which its loader stops. "slowfast_pkl" is the format of
    "caffe2" for PySlowFast's architecture, which the file does not say. "slowfast" and "mmaction2" have a few lines of
    configuration beside the weights, for what the keys do not say.

    Args:
        model: a network of `create_model` that the project can build.
        path: the file, which is overwritten.
        form: "caffe2", "caffe2_flat", "slowfast_pkl", "slowfast", "pytorchvideo", "mmaction2" or "torchvision".
        frames: frames of the clips that the network is for; the release's function depends on them if the norms
            are frozen.

    Warns:
        UserWarning: the file must be read with an option, since nothing in it tells the dot product from the
            embedded Gaussian.

    Raises:
        WeightsError: an unknown format, or a network that the project cannot build, with the reason.
    """
    if form not in FORMATS:
        raise WeightsError(f"format: got {form!r}, expected one of {', '.join(FORMATS)}")
    project = PROJECTS[form.removesuffix("_flat")]
    reason = export_limit(model, form, frames)
    if reason is not None:
        raise WeightsError(f"{project.title} cannot build this network: {reason}")
    state = model.state_dict()
    if form not in PICKLES:
        torch.save(_torch_file(model, state, form), path)
        return
    weights = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    blobs: dict[str, Tensor | int] = {**project.keymaps[0].write(weights)}
    write_blobs(Path(path), blobs | {"model_iter": 0, "lr": torch.tensor(0.0)}, nested=form != "caffe2_flat")
    if any(block.pairwise == "dot_product" for block in nonlocal_blocks(model).values()):
        warnings.warn(
            "nothing in the file says that its blocks use the dot product: read it with pairwise=dot_product",
            stacklevel=2,
        )


def _torch_file(model: VideoResNet, state: Mapping[str, Tensor], form: str) -> dict[str, object]:
    """The dictionary that `torch.save` writes, for a format that is not in `PICKLES`."""
    flat = is_2d(model) and form in ("mmaction2", "torchvision")  # these have 2-D convolutions
    weights = {
        key: (value.squeeze(2) if flat and value.ndim == 5 else value).detach().cpu().contiguous()
        for key, value in state.items()
    }
    keymaps = PROJECTS[form].keymaps
    if form == "pytorchvideo":
        pooled = not isinstance(model.pool2, nn.Identity)
        return {"model_state": keymaps[0 if pooled else 1].write(weights)}
    if form == "slowfast":
        return {
            "epoch": 0,
            "model_state": keymaps[0].write(weights),
            "optimizer_state": {},
            "cfg": slowfast_configuration(model, is_2d=is_2d(model)),
        }
    if form == "mmaction2":
        subsampled = all(block.subsample for block in nonlocal_blocks(model).values())
        # its w_f is a 1×1 convolution of the N×M map
        weights = {
            key: value.view(1, -1, 1, 1) if key.endswith("w_f") else value for key, value in weights.items()
        }
        named = keymaps[0 if subsampled else 1].write(weights)
        return {
            "meta": {"config": mmaction2_configuration(model, is_2d=is_2d(model))},
            "state_dict": named,
        }
    return dict(keymaps[0].write(weights))
