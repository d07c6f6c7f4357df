"""The configuration of a run: its sections, and how files and overrides become one."""

from nlnet.engine.config.read import flatten, from_mapping, known_keys, override, read_yaml, unknown_key
from nlnet.engine.config.sections import (
    Config,
    DataConfig,
    EvalConfig,
    InitConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "EvalConfig",
    "InitConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "flatten",
    "from_mapping",
    "known_keys",
    "override",
    "read_yaml",
    "unknown_key",
]
