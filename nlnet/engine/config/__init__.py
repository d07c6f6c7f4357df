"""The configuration of a run.

sections.py   every key, its type and its default
read.py       from YAML files, mappings and `key=value` overrides
inputs.py     the inputs of a configured run: clip sampling, videos, labels
"""

from nlnet.engine.config.read import (
    flatten,
    from_json,
    from_mapping,
    known_keys,
    override,
    read_yaml,
    unknown_key,
)
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
    "from_json",
    "from_mapping",
    "known_keys",
    "override",
    "read_yaml",
    "unknown_key",
]
