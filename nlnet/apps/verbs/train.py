"""`nlnet train`: train a network, or print the plan of the run."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from nlnet.apps.console import OUT, TrainingDisplay, print_json
from nlnet.apps.recipes.catalogue import recipe_or_file
from nlnet.apps.recipes.plan import make_plan
from nlnet.apps.report.analysis import verdicts
from nlnet.engine.config import Config, override
from nlnet.engine.distributed import World, world
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.train import Outcome, train

INTERRUPTED = 130
"""Exit code of a run that SIGINT or SIGTERM stopped, by the convention of shells."""


def run_training(
    recipe: str | None,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: Path | None,
    until: int | None,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run `nlnet train` and return its exit code: 130 if a signal stopped the run, otherwise 0.

    Args:
        recipe: a recipe's name or a YAML file, for a new run; None where `resume` names the run to continue.
        until: stop with a checkpoint after this iteration.
    """
    if resume is not None:
        run, name = RunDir(resume), str(resume)
        config, _ = run.read_config()
    else:
        assert recipe is not None
        config, name = override(recipe_or_file(recipe), overrides), Path(recipe).stem
        run = RunDir(out or Path("runs") / name)
    with world(device) as here:
        if dry_run:
            show_plan(config, name, recipe, run, here, as_json=as_json)
            return 0
        display = TrainingDisplay(f"{name} → {run.path}") if here.first else None
        with display or nullcontext():
            outcome = train(config, run, here, resume=resume is not None, until=until, callback=display)
        if here.first:
            show_outcome(outcome, run, as_json=as_json)
        return INTERRUPTED if outcome.interrupted else 0


def show_plan(
    config: Config, name: str, recipe: str | None, run: RunDir, here: World, *, as_json: bool
) -> None:
    """Print the plan of a new run or, where `recipe` is None, of the rest of a stopped run."""
    base = config if recipe is None else recipe_or_file(recipe)
    resumed_at = run.load_state()["iteration"] if recipe is None else None
    plan = make_plan(config, name=name, base=base, run=run, world=here, resumed_at=resumed_at)
    if here.first:
        print_json(plan.document()) if as_json else OUT.print(plan)


def show_outcome(outcome: Outcome, run: RunDir, *, as_json: bool) -> None:
    """Print how the run ended, its validation, and what training did to each non-local block."""
    blocks = verdicts(run.metrics())
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "iteration": outcome.iteration,
                "interrupted": outcome.interrupted,
                "validation": outcome.metrics,
                "blocks": {block: vars(verdict) for block, verdict in blocks.items()},
            }
        )
        return
    if outcome.interrupted:
        OUT.print(
            f"stopped after iteration {outcome.iteration}; continue with: nlnet train --resume {run.path}",
            markup=False,
            highlight=False,
        )
        return
    metrics = ", ".join(f"{name} {value:.2f} %" for name, value in outcome.metrics.items())
    validation = f"; validation {metrics}" if metrics else ""
    OUT.print(f"{run.path}: {outcome.iteration} iterations done{validation}", markup=False, highlight=False)
    for block, verdict in blocks.items():
        OUT.print(f"block {block} {verdict.words}", markup=False, highlight=False)
    OUT.print(f"training curves and block statistics: nlnet report {run.path}", markup=False, highlight=False)
