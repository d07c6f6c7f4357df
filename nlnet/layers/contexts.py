"""Context managers for a forward pass: autocast off, evaluation mode."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off inside the context, for code that chooses its precision itself."""
    # torch raises an error when asked about autocast on the meta device, on which networks are counted
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and afterwards back into the mode that each had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # module by module: `model.train()` would also unfreeze parts that the caller keeps in evaluation mode
        for module, training in modes:
            module.training = training
