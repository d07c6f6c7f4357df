"""The optimiser: SGD or AdamW over groups of parameters that differ in weight decay and learning rate."""

from collections.abc import Collection

import torch
from torch import nn

from nlnet.engine.config import OptimizerConfig
from nlnet.errors import ConfigError

BATCH_NORM = nn.modules.batchnorm._BatchNorm
NORMS = (BATCH_NORM, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, transferred: Collection[str] = ()
) -> list[dict[str, object]]:
    """Return groups with the keys params, weight_decay and factor (on the learning rate).

    γ and β of norms get `norm_weight_decay`, all other parameters `weight_decay` (the release decays no BN parameter).
    Parameters named in `transferred` learn at `transferred_lr` times the rate; at 0 they are frozen.

    Raises:
        ConfigError: every parameter is frozen.
    """
    inside_norms = {
        id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = config.transferred_lr if name in transferred else 1.0
        if factor == 0:
            # out of the groups: at rate 0 the gradient would still be computed and enter clip_norm
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decay = config.norm_weight_decay if id(parameter) in inside_norms else config.weight_decay
        groups.setdefault((decay, factor), []).append(parameter)
    if not groups:
        raise ConfigError(
            "optimizer.transferred_lr: 0 freezes every weight of this network, so nothing is left to train; set it "
            "above 0, or leave some weights fresh with init.drop"
        )
    return [{"params": ps, "weight_decay": decay, "factor": factor} for (decay, factor), ps in groups.items()]


def create_optimizer(
    model: nn.Module, config: OptimizerConfig, transferred: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Create SGD with (Nesterov) momentum, or AdamW whose β₁ is `momentum`."""
    groups = parameter_groups(model, config, transferred)
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    # torch refuses Nesterov without momentum
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov and config.momentum > 0
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze_norms(model: nn.Module, transferred: Collection[str]) -> list[nn.Module]:
    """Fix statistics and parameters of the batch norms whose weights were transferred, and return these norms.

    Fresh norms (γ = 0 after W_z) keep learning. `model.train()` unfreezes the statistics: the caller puts the returned
    modules back into eval mode after each call.

    Raises:
        ConfigError: no batch norm was transferred.
    """
    frozen: list[nn.Module] = []
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORM) and f"{name}.running_mean" in transferred:
            module.requires_grad_(False)
            module.eval()
            frozen.append(module)
    if not frozen:
        raise ConfigError(
            "training.frozen_norm: no batch norm came from init.weights, so there is none to freeze; set "
            "init.weights, or training.frozen_norm=false"
        )
    return frozen
