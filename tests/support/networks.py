"""Random weights for tests of networks."""

import torch


def randomised(model, seed=0):
    """Fill all weights and statistics of a model with random values, so that a test notices a key that is lost."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + (0.9 if "var" in name else -0.1))
    return model
