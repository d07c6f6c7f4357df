"""`nlnet report`: write a page on a training run: curves, block statistics, and what its test shows."""

from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, print_json
from nlnet.apps.report.analysis import Records, by_block, confusion, hardest, most_confused, of_kind, verdicts
from nlnet.apps.report.figures import (
    block_stats_picture,
    classes_picture,
    confusion_picture,
    hardest_picture,
    training_picture,
)
from nlnet.apps.report.page import page
from nlnet.engine.config import Config
from nlnet.engine.evaluation.score_files import SavedScores, read_scores
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import ScoresError

HARDEST = 12
"""Number of hardest videos that are shown."""
PAIRS = 15
"""Number of confused pairs of classes that are listed."""
PICTURES = {"training", "blocks", "confusion", "classes", "hardest"}
"""Names of all pictures that a report can have."""


def run_report(path: Path, *, out: Path | None, as_json: bool) -> None:
    """Run `nlnet report`: write the report, and print the states of the blocks and what the report lacks."""
    folder = out or path / "report"
    report = write_report(RunDir(path), folder)
    if as_json:
        print_json(report)
        return
    for block, found in report["blocks"].items():
        OUT.print(f"block {block} {found['words']}", markup=False, highlight=False)
    for line in report["missing"]:
        OUT.print(f"not in the report: {line}", markup=False, highlight=False)
    OUT.print(f"report: {folder / 'report.md'}", markup=False, highlight=False)


def write_report(run: RunDir, folder: Path) -> dict[str, Any]:
    """Write report.md, report.json and the pictures under `folder`; return the content of report.json.

    What cannot be shown is listed under "missing", with the reason and the command that adds it. Pictures of an earlier
    report that this one does not have are removed.

    Raises:
        RunError: `run` is no run directory.
    """
    config, classes = run.read_config()
    records = run.metrics()
    missing: list[str] = []
    report: dict[str, Any] = {
        "run": str(run.path),
        "model": config.model.name,
        "classes": len(classes),
        "iterations": max((r["iteration"] for r in of_kind(records, "train")), default=0),
        "of": config.schedule.iterations,
    }
    pictures = _training(run, config, records, folder, missing, report)
    scores = run.path / "test" / "scores.safetensors"
    if not scores.exists():
        missing.append(
            "test results (confusion matrix, accuracy by class, hardest videos), because the run was not tested; test it "
            f"with: nlnet test {run.path}"
        )
    else:
        try:
            saved = read_scores(scores)
        # a damaged file must not hide the training, which can still be shown
        except ScoresError as error:
            missing.append(f"test results: {error}")
        else:
            pictures |= _test(saved, folder, missing, report)
    # older reports call the picture of block statistics "vitals"
    for stale in {*PICTURES, "vitals"} - pictures:
        (folder / f"{stale}.png").unlink(missing_ok=True)
    report |= {"missing": missing, "pictures": sorted(f"{name}.png" for name in pictures)}
    write_text(folder / "report.md", page(report))
    write_json(folder / "report.json", report)
    return report


def _training(
    run: RunDir, config: Config, records: Records, folder: Path, missing: list[str], report: dict[str, Any]
) -> set[str]:
    """Add to `report` what metrics.jsonl says, and save its pictures; return their names."""
    pictures = set()
    checks = of_kind(records, "validation")
    report["validation"] = dict(checks[-1]) if checks else None
    report["loss"] = next((r["loss"] for r in reversed(of_kind(records, "train"))), None)
    report["skipped"] = len(of_kind(records, "skipped"))
    if of_kind(records, "train"):
        training_picture(records, folder / "training.png")
        pictures.add("training")
    else:
        missing.append(
            f"training curves, because no iteration is logged yet; go on with: nlnet train --resume {run.path}"
        )
    if not checks:
        missing.append(
            "validation results, because the run has none; set data.val=PATH in a new `nlnet train`"
        )
    report["blocks"] = {
        block: {"state": verdict.state, "words": verdict.words, "last": dict(by_block(records)[block][-1])}
        for block, verdict in verdicts(records).items()
    }
    if report["blocks"]:
        block_stats_picture(records, folder / "blocks.png")
        pictures.add("blocks")
    elif "_nl" not in config.model.name:
        missing.append(f"block statistics, because {config.model.name} has no non-local block")
    elif config.training.block_stats_every == 0:
        missing.append(
            "block statistics, because training.block_stats_every is 0; set it to 20 in a new `nlnet train`"
        )
    else:
        missing.append(
            f"block statistics, because {run.metrics_path} has none: an older version of nlnet trained the run; a new "
            "`nlnet train` records them"
        )
    return pictures


def _test(saved: SavedScores, folder: Path, missing: list[str], report: dict[str, Any]) -> set[str]:
    """Add to `report` what the scores of the test say, and save their pictures; return their names."""
    evaluation, rows = saved.evaluation, saved.evaluation.by_class()
    test: dict[str, Any] = {
        "videos": len(evaluation.videos),
        "unread": len(evaluation.failures),
        "views": saved.test.clips * saved.test.crops,
        "protocol": saved.test.protocol,
        "checkpoint": saved.checkpoint,
        "iteration": saved.iteration,
        "metrics": evaluation.metrics(),
    }
    report["test"] = test
    name = next((key for key in ("top1", "average_precision") if rows and key in rows[0]), None)
    if name is None or all(row[name] is None for row in rows):
        missing.append(
            "confusion matrix, accuracy by class and hardest videos, because the test videos have no labels"
        )
        return set()
    pictures = {"classes"}
    classes_picture(rows, name, folder / "classes.png")
    # a class without test videos has no accuracy
    known = sorted((row for row in rows if row[name] is not None), key=lambda row: row[name])
    test["by_class"] = {"figure": name, "worst": known[:5], "best": known[:-6:-1]}
    test["classes_without_videos"] = len(rows) - len(known)
    if evaluation.multilabel:
        missing.append(
            "confusion matrix, because the videos have several classes each; see the average precision by class"
        )
    else:
        matrix = confusion(evaluation)
        confusion_picture(matrix, evaluation.classes, folder / "confusion.png")
        pictures.add("confusion")
        test["confused"] = most_confused(matrix, evaluation.classes, PAIRS)
    hard = hardest(evaluation, HARDEST)
    missing += [
        f"frame of a hardest video: {reason}" for reason in hardest_picture(hard, folder / "hardest.png")
    ]
    test["hardest"] = [vars(video) | {"path": str(video.path)} for video in hard]
    return pictures | {"hardest"}
