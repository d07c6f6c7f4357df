"""The plan of a training run, for `nlnet train RECIPE --dry-run`: schedule, cost, published figures and warnings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nlnet.apps.console import table
from nlnet.apps.recipes.costs import (
    GIB,
    NetworkCost,
    assumption,
    measurements,
    network_cost,
    run_cost,
    step_bytes,
)
from nlnet.apps.recipes.kinetics import KINETICS, Recipe
from nlnet.apps.recipes.preflight import differences, missing_inputs, other_normalisation, too_large
from nlnet.apps.recipes.published import published
from nlnet.data import VideoList
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.network import build_model
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.initial_weights import read_initial, start_from
from nlnet.engine.training.schedule import Phase, phases, rates
from nlnet.engine.training.videos import read_training_videos
from nlnet.weights.read import Weights


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a dry run prints: tables, or the JSON that `document` returns."""

    name: str
    run: str
    facts: dict[str, str]
    phases: tuple[Phase, ...]
    cost: dict[str, float | None]
    published: tuple[str, ...]
    warnings: tuple[str, ...]
    config: Config

    def __rich__(self) -> Group:
        rows = [
            [f"{p.start:,} – {p.stop:,}", rates(p), "{:.1f} – {:.1f}".format(*p.epochs) if p.epochs else "–"]
            for p in self.phases
        ]
        notes = [
            Text.assemble(("Reported: ", "bold"), f"{line} (not trained here)") for line in self.published
        ]
        notes += [Text.assemble(("Warning: ", "yellow"), line) for line in self.warnings]
        return Group(
            Text(f"{self.name} → {self.run}", style="bold"),
            _grid(self.facts),
            table("Learning rate", ["iterations", "rate", "epochs"], rows),
            *notes,
        )

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON document."""
        return {
            "name": self.name,
            "run": self.run,
            "facts": self.facts,
            "phases": [asdict(phase) for phase in self.phases],
            "cost": self.cost,
            "published": list(self.published),
            "warnings": list(self.warnings),
            "config": self.config.model_dump(mode="json"),
        }


def make_plan(
    config: Config, *, name: str, base: Config, run: RunDir, world: World, resumed_at: int | None = None
) -> Plan:
    """Return the plan of training `config` on the processes of `world`.

    Args:
        base: the recipe or file before the settings were changed; differences from it become warnings.
        resumed_at: the iteration of the checkpoint from which training would continue.

    Raises:
        NlnetError: data or weights that are given cannot be used, as in training.
    """
    recipe = KINETICS.get(name)
    videos, validation = (None, None) if config.data.train is None else read_training_videos(config)
    classes = len(videos.classes) if videos else recipe.classes if recipe else 400
    network = network_cost(config, classes)
    cost = run_cost(config, network)
    count = len(videos.items) if videos else recipe.videos if recipe else None
    epochs = None if count is None else cost.clips / count
    start = read_initial(config.init) if resumed_at is None else None
    per_pass = config.training.batch / (world.size * config.training.accumulate)
    activations, states = step_bytes(config, network, max(1, round(per_pass)))
    described = {
        **_network_facts(config, network, classes),
        "videos": _videos(videos, validation, count),
        "batch": f"{config.training.batch} clips = {world.size} × {config.training.accumulate} × {per_pass:g} "
        "(processes × passes × clips per pass)",
        "optimiser": _optimiser(config),
        "precise BN": _precise(config, cost.precise_share),
        "weights": _weights(config, start, recipe, classes)
        if resumed_at is None
        else f"the checkpoint at iteration {resumed_at:,}",
        "memory": f"about {(activations + states) / GIB:.1f} GiB per process: {activations / GIB:.1f} for activations"
        f"{' (checkpointed)' if config.training.checkpointing else ''}, {states / GIB:.1f} for weights, gradients and "
        "optimiser state",
        "test": _test(config, network, recipe),
        "device": f"{world.device}, {config.training.precision}",
        "cost": f"{cost.clips / 1e6:.3g} M clips{'' if epochs is None else f' = {epochs:.1f} epochs'}, {cost.macs / 1e18:.3g}·10¹⁸ "
        f"multiply-adds, about {cost.gpu_hours:.3g} GPU-hours",
        "assumption": assumption(config.training.precision),
    }
    warnings = [
        *missing_inputs(config, recipe, run, resumed_at),
        *differences(config, base, recipe, world.size),
        *other_normalisation(config, start),
        *too_large(world, activations + states),
    ]
    return Plan(
        name=name,
        run=str(run.path),
        facts=described,
        phases=tuple(phases(config, count)),
        cost={
            "clips": cost.clips,
            "epochs": epochs,
            "macs_per_clip": network.macs,
            "macs": cost.macs,
            "gpu_hours": cost.gpu_hours,
            "activation_bytes": activations,
            "state_bytes": states,
        },
        published=tuple(str(row) for row in published(name)),
        warnings=tuple(warnings),
        config=config,
    )


def _grid(values: Mapping[str, str]) -> Table:
    made = Table.grid(padding=(0, 2))
    for name, value in values.items():
        made.add_row(f"  {name}", Text(value))
    return made


def _network_facts(config: Config, network: NetworkCost, classes: int) -> dict[str, str]:
    frames, stride = sampling(config)
    data = config.data
    sides = f"{data.scales[0]}–{data.scales[1]}" if data.scales[0] < data.scales[1] else f"{data.scales[0]}"
    blocks = f", {network.blocks} non-local blocks" if network.blocks else ""
    return {
        "model": f"{config.model.name}, {config.model.variant}: {network.parameters / 1e6:.3f} M parameters{blocks}, "
        f"{classes} classes, {network.macs / 1e9:.2f}·10⁹ multiply-adds per clip",
        "clip": f"{frames} frames with stride {stride}, crops of {data.crop}×{data.crop} at a shorter side of {sides}"
        f"{', half of them flipped' if data.flip else ''}; short videos loop",
    }


def _videos(videos: VideoList | None, validation: VideoList | None, count: int | None) -> str:
    if videos is None:
        counted = (
            "" if count is None else f"; epochs are of the {count:,} videos in the release's Kinetics-400"
        )
        return f"not given{counted}"
    checked = f"{len(validation.items):,} for validation" if validation else "no validation set"
    return f"{len(videos.items):,} in {len(videos.classes)} classes, {checked}"


def _optimiser(config: Config) -> str:
    optimizer = config.optimizer
    sgd = f"SGD, {'Nesterov ' if optimizer.nesterov else ''}momentum {optimizer.momentum:g}"
    return (
        f"{sgd if optimizer.kind == 'sgd' else 'AdamW'}, weight decay {optimizer.weight_decay:g} "
        f"({optimizer.norm_weight_decay:g} on norms), dropout {config.model.dropout:g}, {config.training.loss} loss"
    )


def _precise(config: Config, share: float) -> str:
    if config.training.precise_norm == 0:
        return "off"
    return (
        f"{config.training.precise_norm} batches before each of {measurements(config)} checkpoints and validations, "
        f"{share:.1%} of all multiply-adds"
    )


def _weights(config: Config, start: Weights | None, recipe: Recipe | None, classes: int) -> str:
    if start is not None:
        return start_from(start, build_model(config, classes), config.init)[0]
    return f"none given; the recipe starts from {recipe.origin}" if recipe else "none: trained from scratch"


def _test(config: Config, network: NetworkCost, recipe: Recipe | None) -> str:
    test = config.test
    views = test.clips * test.crops
    size = (
        f"whole frames, shorter side {test.short_side}"
        if test.protocol == "paper"
        else f"{test.crop}×{test.crop}"
    )
    macs = views * network.eval_macs
    videos = recipe.eval_videos if recipe else None
    whole = (
        ""
        if videos is None
        else f" ({videos * macs / 1e18:.2f}·10¹⁸ for the {videos:,} videos of Kinetics-400)"
    )
    return (
        f"protocol {test.protocol}: {test.clips} clips × {test.crops} crops, {size}; {macs / 1e12:.2f}·10¹² "
        f"multiply-adds per video{whole}"
    )
