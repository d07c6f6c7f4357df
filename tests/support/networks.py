"""Networks with random weights everywhere."""

import torch


def randomised(model, seed=0):
    """Random weights and statistics everywhere, so that no key can be missed unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + (0.9 if "var" in name else -0.1))
    return model
