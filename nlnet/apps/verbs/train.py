"""`nlnet train`: a training run from its arguments to its last line."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from nlnet.apps.console import OUT, TrainingDisplay, print_json
from nlnet.apps.recipes.catalogue import recipe_or_file
from nlnet.apps.recipes.plan import make_plan
from nlnet.apps.report.findings import verdicts
from nlnet.engine.config import Config, override
from nlnet.engine.distributed import World, world
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.train import Outcome, train


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
    """`nlnet train`. Exit code 130 where a signal stopped the run."""
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
            outcome = train(config, run, here, resume=resume is not None, until=until, listener=display)
        if here.first:
            report_training(outcome, run, as_json=as_json)
        return 130 if outcome.interrupted else 0


def show_plan(
    config: Config, name: str, recipe: str | None, run: RunDir, here: World, *, as_json: bool
) -> None:
    """`nlnet train --dry-run`; without a recipe, of the run that would go on."""
    base = config if recipe is None else recipe_or_file(recipe)
    resumed_at = run.load_state()["iteration"] if recipe is None else None
    plan = make_plan(config, name=name, base=base, run=run, world=here, resumed_at=resumed_at)
    if here.first:
        print_json(plan.document()) if as_json else OUT.print(plan)


def report_training(outcome: Outcome, run: RunDir, *, as_json: bool) -> None:
    """How the run ended and what became of each block."""
    blocks = verdicts(run.metrics())
    if as_json:
        print_json(
            {"run": str(run.path), "iteration": outcome.iteration, "interrupted": outcome.interrupted}
            | {"validation": outcome.metrics, "blocks": {block: vars(said) for block, said in blocks.items()}}
        )
    elif outcome.interrupted:
        OUT.print(f"stopped after iteration {outcome.iteration}; go on with: nlnet train --resume {run.path}")
    else:
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in outcome.metrics.items())
        OUT.print(
            f"{run.path}: {outcome.iteration} iterations done{'; validation ' + shown if shown else ''}"
        )
        for block, said in blocks.items():
            OUT.print(f"block {block} {said.words}", markup=False, highlight=False)
        OUT.print(f"curves and blocks: nlnet report {run.path}", markup=False, highlight=False)
