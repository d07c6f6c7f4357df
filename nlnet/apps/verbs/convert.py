"""`nlnet convert`: weight files of other projects into checkpoints of nlnet and back, with a report of every choice.

The work is done elsewhere: `read_weights` reads, `network_of` builds, as in `create_model(weights=…)`, and
`write_weights` or `save_checkpoint` writes.
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
from nlnet.engine.runs.atomic_write import write_atomically
from nlnet.engine.runs.checkpoint import Checkpoint, save_checkpoint
from nlnet.errors import ConfigError, RunError, listed
from nlnet.models.options import OPTIONS
from nlnet.models.resnet import VideoResNet
from nlnet.weights.architecture import architecture_of
from nlnet.weights.load import LoadReport
from nlnet.weights.projects import PROJECTS
from nlnet.weights.read import Weights, read_weights
from nlnet.weights.write import write_weights
from nlnet.zoo import chosen_options, network_of

SHOWN = 6
"""The most keys that a line in the terminal names; `--json` has all."""


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
    """Run `nlnet convert`.

    Reads `origin`, builds its network, or the one called `name`, and writes its weights to `out`: as a checkpoint of
    nlnet, or in the format `form` of another project.

    Args:
        assignments: `model.key=value` and `data.key=value` settings; they win over what the file says.
        source: the project that `origin` is from, where its keys do not tell.
        classes_file: one class name per line.

    Raises:
        RunError: `out` exists.
        FileNotFoundError: `origin` does not exist. WeightsError: it cannot be read.
    """
    if out.exists():
        raise RunError(f"{out}: exists already; remove it, or choose another name")
    given = model_settings(assignments)
    name = given.pop("name", None) or name
    network_options = {key: value for key, value in given.items() if key in OPTIONS}
    weights = read_weights(origin, source=source, options=network_options)
    config = configuration(weights, assignments, given, name)
    classes = class_names(weights, classes_file, named=name is not None)
    model, loaded = network_of(weights, name=name, num_classes=len(classes), options=given)
    notes: list[str] = []
    if form is None:
        written_from = {"source": weights.source, "file": origin.name, "settings": weights.settings}
        checkpoint = Checkpoint(
            weights=model.state_dict(), config=config, classes=classes, iteration=0, metrics={}
        )
        save_checkpoint(out, checkpoint, origin=json.dumps(written_from))
    else:
        notes = write_in_format(model, out, form, sampling(config)[0])
    document = report_of(origin, out, form, weights, config, loaded, classes, named=name is not None)
    document["notes"] = notes
    print_json(document) if as_json else show(document, weights, model)


def write_in_format(model: VideoResNet, out: Path, form: str, frames: int) -> list[str]:
    """Write the weights of `model` in another project's format, and return notes for whoever reads the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_atomically(out, lambda temporary: write_weights(model, temporary, form, frames=frames))
    return [str(warning.message) for warning in caught]


def model_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the checked values of the `model.key=value` assignments, by key.

    Raises:
        ConfigError: an unknown key, or one of a section other than model and data.
    """
    for assignment in assignments:
        if not assignment.startswith(("model.", "data.")):
            raise ConfigError(
                f"{assignment!r}: expected a setting of the network or its data, model.KEY=VALUE or data.KEY=VALUE"
            )
    values = override(Config(), assignments).model_dump()["model"]
    keys = [assignment.partition("=")[0].removeprefix("model.") for assignment in assignments]
    return {key: values[key] for key in keys if key in values}


def configuration(
    weights: Weights, assignments: Sequence[str], given: Mapping[str, Any], name: str | None
) -> Config:
    """Return the configuration of the converted network: what the file says, then what the user gives."""
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
    """Return the class names: those in the file `path`, else those in the weight file, else "0", "1", ….

    Args:
        named: whether a network was named, which gets a new classifier if the number of classes differs.

    Raises:
        ConfigError: the number of names is not the size of the classifier that is kept; or there is no classifier.
    """
    size = architecture_of(weights.tensors).num_classes
    if path is not None:
        names = tuple(read_classes(path))
        if not named and size is not None and len(names) != size:
            raise ConfigError(
                f"{path}: has {len(names)} class names, but the classifier has {size} outputs; give as many names, "
                "or --model NETWORK for a new classifier"
            )
        return names
    if weights.classes is not None:
        return weights.classes
    if size is None:
        raise ConfigError("the weights have no classifier; give --classes FILE and --model NETWORK")
    return tuple(str(index) for index in range(size))


def report_of(
    origin: Path,
    out: Path,
    form: str | None,
    weights: Weights,
    config: Config,
    loaded: LoadReport,
    classes: Sequence[str],
    *,
    named: bool,
) -> dict[str, Any]:
    """Return what was converted, and how, as a JSON document."""
    # an image network's options do not apply to the video network that was named to start from it
    settings = {} if named and weights.is_image_network else weights.settings
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
        "copied": len(loaded.copied),
        "inflated": len(loaded.inflated),
        "fresh": [*loaded.missing, *loaded.mismatched],
        "dropped": list(loaded.unexpected),
        "bookkeeping": list(weights.bookkeeping),
    }


def show(document: Mapping[str, Any], weights: Weights, model: VideoResNet) -> None:
    """Print the report in the terminal."""
    parameters = sum(p.numel() for p in model.parameters())
    dropped = document["dropped"]
    lines = {
        "from": document["from"],
        "to": f"{document['to']} ({document['format']})",
        "source": PROJECTS[weights.source].title,
        "network": f"{document['model']['name']}, {parameters / 1e6:.2f} M parameters, {document['classes']} classes",
        "tensors": f"{document['copied']} copied, {document['inflated']} inflated, "
        + (f"{len(dropped)} dropped ({listed(dropped, SHOWN)})" if dropped else "none left over"),
        "pixels": f"RGB in [0, 1], mean {document['mean']}, standard deviation {document['std']}",
    }
    if document["fresh"]:
        lines["initialised"] = listed(document["fresh"], SHOWN)
    if document["notes"]:
        lines["note"] = "; ".join(document["notes"])
    if document["bookkeeping"]:
        lines["ignored keys"] = listed(document["bookkeeping"], SHOWN)
    OUT.print(facts("converted", lines))
    rows = [(name, made["value"], made["why"]) for name, made in document["settings"].items()]
    if rows:
        title = "Options of the network, and where each comes from"
        OUT.print(table(title, ("option", "value", "reason"), rows, text=range(3)))
