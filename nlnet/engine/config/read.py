"""A configuration from a YAML file, a mapping, or `key=value` overrides; unknown keys are errors."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from nlnet.engine.config.sections import Config, _rules
from nlnet.errors import ConfigError


def from_mapping(values: Mapping[str, Any], *, source: str) -> Config:
    """A checked `Config`; errors name `source`, the key and the nearest known key."""
    unknown = [key for key in flatten(values) if key not in known_keys()]
    if unknown:
        raise ConfigError(f"{source}: " + "; ".join(unknown_key(key) for key in unknown))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(str(p) for p in e['loc']) or 'config'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def read_yaml(path: Path) -> Config:
    """The configuration in a YAML (or JSON) file."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read it ({error.strerror}); expected a YAML file or a recipe's name"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{path}: expected sections such as `model:` and `data:`, got {type(values).__name__}"
        )
    return from_mapping(values, source=str(path))


def override(config: Config, assignments: Sequence[str]) -> Config:
    """`config` with `section.key=value` assignments applied; values are read as YAML.

    A new `test.protocol` brings its own numbers of clips and crops unless they are assigned with it.
    """
    values = config.model_dump()
    assigned = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}: expected key=value, such as optimizer.lr=0.01")
        if key not in known_keys():
            raise ConfigError(unknown_key(key))
        section, _, field = key.partition(".")
        assigned.append(key)
        try:
            values[section][field] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{key}: cannot read the value {text!r}; quote it if it is text") from None
    _leave_to_the_protocol(values["test"], assigned)
    return from_mapping(values, source="after the overrides")


def _leave_to_the_protocol(test: dict[str, Any], assigned: Sequence[str]) -> None:
    """Take out of the test section what a newly chosen protocol, or size of whole frames, brings by itself."""
    chosen, sized = "test.protocol" in assigned, "test.short_side" in assigned
    rules = _rules(test["protocol"])
    whole = rules is not None and rules.crop == "whole"
    brought = {"clips": chosen, "crops": chosen, "crop": whole and (chosen or sized)}
    for field, own in brought.items():
        if own and f"test.{field}" not in assigned:
            del test[field]


def known_keys() -> tuple[str, ...]:
    """Every dotted key."""
    return tuple(
        f"{section}.{field}"
        for section, info in Config.model_fields.items()
        for field in info.annotation.model_fields  # type: ignore[union-attr]
    )


def unknown_key(key: str) -> str:
    """The message for a key that does not exist, with the nearest ones that do."""
    near = get_close_matches(key, known_keys(), n=3, cutoff=0.5)
    near += [known for known in known_keys() if known.endswith("." + key.rpartition(".")[2])]
    hint = (
        f"; did you mean {', '.join(dict.fromkeys(near))}?"
        if near
        else f"; keys are {', '.join(known_keys())}"
    )
    return f"unknown key {key!r}{hint}"


def flatten(values: Mapping[str, Any]) -> list[str]:
    """Dotted keys of a nested mapping of two levels; a section that is no mapping is its own key."""
    keys = []
    for section, fields in values.items():
        if section in Config.model_fields and isinstance(fields, Mapping):
            keys += [f"{section}.{field}" for field in fields]
        elif section not in Config.model_fields:
            keys.append(str(section))
    return keys
