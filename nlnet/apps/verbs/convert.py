"""`nlnet convert`: weight files of other projects into ours and back, with everything said that was decided.

It does nothing of its own: reading is `read_weights` and building is `network_of`, as `create_model(weights=…)` does
both, and writing is `write_weights` or a checkpoint.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, facts, print_json, table
from nlnet.data import read_classes
from nlnet.engine.config import Config, from_mapping, override
from nlnet.engine.config.inputs import sampling
from nlnet.engine.runs.atomic_write import atomically
from nlnet.engine.runs.checkpoint import Checkpoint, save_checkpoint
from nlnet.errors import ConfigError, RunError
from nlnet.models.options import OPTIONS
from nlnet.models.resnet import VideoResNet
from nlnet.weights.architecture import architecture_of
from nlnet.weights.load import LoadReport
from nlnet.weights.projects.table import SOURCES
from nlnet.weights.read import Weights, read_weights
from nlnet.weights.write import write_weights
from nlnet.zoo import chosen_options, network_of

SHOWN = 6
"""Bookkeeping names in the terminal; `--json` has all."""


def run_convert(
    origin: Path,
    out: Path,
    assignments: Sequence[str],
    *,
    form: str | None,
    source: str | None,
    name: str | None,
    classes_file: Path | None,
    as_json: bool,
) -> None:
    """Read `origin`, build its network (or `name`), and write `out`: a checkpoint of ours, or a file of `form`."""
    if out.exists():
        raise RunError(f"{out}: is there already; remove it or choose another name")
    given = assigned(assignments)
    name = given.pop("name", None) or name
    weights = read_weights(
        origin, source=source, options={key: value for key, value in given.items() if key in OPTIONS}
    )
    config = configuration(weights, assignments, given, name)
    classes = class_names(weights, classes_file, named=name is not None)
    model, report = network_of(weights, name=name, num_classes=len(classes), options=given)
    notes: list[str] = []
    if form is None:
        origin_json = json.dumps(
            {"source": weights.source, "file": origin.name, "settings": weights.settings}
        )
        checkpoint = Checkpoint(
            weights=model.state_dict(), config=config, classes=classes, iteration=0, metrics={}
        )
        save_checkpoint(out, checkpoint, origin=origin_json)
    else:
        notes = write_foreign(model, out, form, sampling(config)[0])
    document = described(origin, out, form, weights, config, report, classes, named=name is not None)
    document["notes"] = notes
    print_json(document) if as_json else show(document, weights, model)


def write_foreign(model: VideoResNet, out: Path, form: str, frames: int) -> list[str]:
    """Write `model` as `form`; what the reader of the file must know."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atomically(out, lambda temporary: write_weights(model, temporary, form, frames=frames))
    return [str(warning.message) for warning in caught]


def assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """The values of `model.key=value` assignments, checked.

    Raises:
        ConfigError: an unknown key, or one of a section other than model and data.
    """
    for assignment in assignments:
        if not assignment.startswith(("model.", "data.")):
            raise ConfigError(f"{assignment!r}: a conversion takes model.* and data.* only")
    values = override(Config(), assignments).model_dump()["model"]
    keys = [assignment.partition("=")[0].removeprefix("model.") for assignment in assignments]
    return {key: values[key] for key in keys if key in values}


def configuration(
    weights: Weights, assignments: Sequence[str], given: Mapping[str, Any], name: str | None
) -> Config:
    """The configuration under which the converted file is that network: what its source fixes, and what is given."""
    if weights.config is not None:
        values = from_mapping(weights.config, source="the file's configuration").model_dump()
    else:
        values = Config().model_dump()
        if weights.statistics is not None:
            values["data"]["mean"], values["data"]["std"] = weights.statistics
    own, chosen = chosen_options(weights, name, given)
    values["model"] |= {"name": own} | chosen
    data = [assignment for assignment in assignments if assignment.startswith("data.")]
    return override(from_mapping(values, source="the converted configuration"), data)


def class_names(weights: Weights, path: Path | None, *, named: bool) -> tuple[str, ...]:
    """Names of the classes, from `path`, the file of weights, or else their numbers.

    Raises:
        ConfigError: another number of names than of classes, where the classifier is to be kept.
    """
    size = architecture_of(weights.tensors).num_classes
    if path is not None:
        names = tuple(read_classes(path))
        if not named and size is not None and len(names) != size:
            raise ConfigError(
                f"{path}: has {len(names)} class names, the classifier {size}; "
                "--model NAME starts a new classifier"
            )
        return names
    if weights.classes is not None:
        return weights.classes
    if size is None:
        raise ConfigError("the weights have no classifier: give --classes FILE and --model NAME")
    return tuple(str(index) for index in range(size))


def described(
    origin: Path,
    out: Path,
    form: str | None,
    weights: Weights,
    config: Config,
    report: LoadReport,
    classes: Sequence[str],
    *,
    named: bool,
) -> dict[str, Any]:
    """What happened, as one JSON document. The settings of a network of stills do not concern a video's."""
    settings = {} if named and weights.stills else weights.settings
    return {
        "from": str(origin),
        "to": str(out),
        "format": form or "nlnet",
        "source": weights.source,
        "model": config.model.model_dump(mode="json"),
        "settings": {option: {"value": value, "why": why} for option, (value, why) in settings.items()},
        "classes": len(classes),
        "mean": config.data.mean,
        "std": config.data.std,
        "copied": len(report.copied),
        "inflated": len(report.inflated),
        "fresh": [*report.missing, *report.mismatched],
        "dropped": list(report.unexpected),
        "bookkeeping": list(weights.bookkeeping),
    }


def show(document: Mapping[str, Any], weights: Weights, model: VideoResNet) -> None:
    """The same for people."""
    kept = document["bookkeeping"]
    more = f", … ({len(kept)} in all)" if len(kept) > SHOWN else ""
    lines = {
        "source": SOURCES[weights.source].title,
        "network": f"{document['model']['name']}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {document['classes']} classes",
        "tensors": f"{document['copied']} copied, {document['inflated']} inflated, none left over",
        "pixels": f"RGB in [0, 1], mean {document['mean']}, deviation {document['std']}",
    }
    if document["fresh"]:
        lines["fresh"] = ", ".join(document["fresh"][:SHOWN])
    if document["notes"]:
        lines["mind"] = "; ".join(document["notes"])
    if kept:
        lines["bookkeeping"] = ", ".join(kept[:SHOWN]) + more
    OUT.print(
        facts(
            "converted", {"from": document["from"], "to": f"{document['to']} ({document['format']})"} | lines
        )
    )
    rows = [(name, made["value"], made["why"]) for name, made in document["settings"].items()]
    if rows:
        OUT.print(table("What was set, and why", ("option", "value", "because"), rows))
