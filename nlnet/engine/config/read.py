"""Read a configuration from a YAML file, a mapping, or `key=value` overrides; unknown keys are errors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nlnet.engine.config.sections import Config, protocol_rules
from nlnet.errors import ConfigError, did_you_mean

RENAMED = {"training.vitals_every": "training.block_stats_every"}
"""Old name of a key → its name now. Files, run directories and overrides with an old name still load."""


def from_mapping(values: Mapping[str, Any], *, source: str) -> Config:
    """Return the checked `Config` of a nested mapping of sections and keys.

    Old names of keys (`RENAMED`) are accepted.

    Raises:
        ConfigError: an unknown key or a wrong value; names `source`, the key and the nearest known key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{source}: expected sections such as `model:` and `data:`, got {type(values).__name__}"
        )
    values = _with_new_names(values, source)
    unknown = [key for key in flatten(values) if key not in known_keys()]
    if unknown:
        raise ConfigError(f"{source}: " + "; ".join(unknown_key(key) for key in unknown))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(map(_wrong_value, error.errors()))) from None


def from_json(text: str, *, source: str) -> Config:
    """Return the checked `Config` of a JSON object, as checkpoints and training states store it.

    Raises:
        ConfigError: not JSON, or not a configuration; names `source`.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{source}: its configuration is not valid JSON ({error})") from None
    return from_mapping(values, source=source)


def read_yaml(path: Path) -> Config:
    """Read the configuration in a YAML (or JSON) file."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read it ({error.strerror}); expected a YAML file or a recipe's name"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return from_mapping(values, source=str(path))


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Return `config` with `section.key=value` assignments applied; values are read as YAML.

    A new `test.protocol` sets its own numbers of clips and crops unless they are assigned with it.

    Raises:
        ConfigError: an assignment without "=", an unknown key, or a wrong value.
    """
    # applied to the values, not to the checked sections: two assignments may be valid only together
    values = config.model_dump()
    assigned = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}: expected key=value, such as optimizer.lr=0.01")
        key = RENAMED.get(key, key)
        if key not in known_keys():
            raise ConfigError(unknown_key(key))
        section, _, field = key.partition(".")
        assigned.append(key)
        try:
            values[section][field] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{key}: cannot read the value {text!r} as YAML; put text in quotes") from None
    _drop_protocol_defaults(values["test"], assigned)
    return from_mapping(values, source="after the overrides")


def known_keys() -> tuple[str, ...]:
    """Every key of the configuration, written section.key."""
    return tuple(
        f"{section}.{field}"
        for section, info in Config.model_fields.items()
        for field in info.annotation.model_fields  # type: ignore[union-attr]
    )


def unknown_key(key: str) -> str:
    """The error message for a key that does not exist, with the nearest keys that do."""
    # `lr` alone, or `data.lr`: the key is right and its section is missing or wrong
    name = key.rpartition(".")[2]
    same_name = [known for known in known_keys() if known.endswith(f".{name}")]
    hint = did_you_mean(same_name[0], same_name) if same_name else did_you_mean(key, known_keys())
    return f"unknown key {key!r}" + (hint or f"; keys are {', '.join(known_keys())}")


def flatten(values: Mapping[str, Any]) -> list[str]:
    """The keys of a nested mapping, written section.key; an unknown section counts as a key."""
    keys = []
    for section, fields in values.items():
        if section in Config.model_fields and isinstance(fields, Mapping):
            keys += [f"{section}.{field}" for field in fields]
        elif section not in Config.model_fields:
            keys.append(str(section))
    return keys


def _with_new_names(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the mapping with the keys of `RENAMED` under their new names; the argument is unchanged."""
    for old, new in RENAMED.items():
        section, _, old_field = old.partition(".")
        _, _, new_field = new.partition(".")
        fields = values.get(section)
        if not isinstance(fields, Mapping) or old_field not in fields:
            continue
        if new_field in fields:
            raise ConfigError(f"{source}: {old} is the old name of {new}; set only {new}")
        renamed = {(new_field if field == old_field else field): value for field, value in fields.items()}
        values = {**values, section: renamed}
    return values


def _drop_protocol_defaults(test: dict[str, Any], assigned: Sequence[str]) -> None:
    """Remove test settings that follow from a newly assigned protocol or short side, so that it sets them."""
    new_protocol, new_size = "test.protocol" in assigned, "test.short_side" in assigned
    rules = protocol_rules(test["protocol"])
    whole_frames = rules is not None and rules.crop == "whole"
    drop = {
        "clips": new_protocol,
        "crops": new_protocol,
        "crop": whole_frames and (new_protocol or new_size),
    }
    for field, dropped in drop.items():
        if dropped and f"test.{field}" not in assigned:
            del test[field]


def _wrong_value(error: Mapping[str, Any]) -> str:
    """The message of one error of pydantic: `section.key: what is wrong`."""
    if error["type"] == "value_error":  # raised by a validator of ours, which names the key itself
        return str(error["ctx"]["error"])
    return f"{'.'.join(map(str, error['loc'])) or 'config'}: {error['msg']}"
