"""The report of the study: ablations.json, with the page and the pictures made beside it, from the runs' own files.

Everything in it but "measured" and "provenance" depends on the runs alone, and is the same whether they were stopped on
the way or not.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.apps.ablation.claims import CLAIMS, Claim
from nlnet.apps.ablation.figures import block_stats_picture, table_picture
from nlnet.apps.ablation.page import page
from nlnet.apps.ablation.plan import Plan, identity
from nlnet.apps.ablation.results import (
    Bin,
    Outcome,
    reach,
    read_outcome,
    read_sessions,
    runs_by_provenance,
)
from nlnet.apps.ablation.rows import published
from nlnet.apps.ablation.statistics import Interval
from nlnet.apps.ablation.study import Row, Table
from nlnet.apps.ablation.verdicts import PartVerdict, judge
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.engine.runs.provenance import provenance

AXES = ("space", "time")
PICTURES = "ablations"
"""Folder of the pictures, beside the page."""


def report(plan: Plan, *, failed: Mapping[str, str], command: str) -> dict[str, Any]:
    """Write ablations.json, ablations.md and the pictures under `plan.out`; return the content of ablations.json.

    Args:
        failed: {run: reason}; the rows of these runs are left out of tables and claims, and listed.
        command: the command line that makes this report.
    """
    # a row in several tables is read for each of them: the files are small
    outcomes = {name: outcomes_of(plan, table, failed) for name, table in plan.tables.items()}
    pictures, sessions = plan.out / PICTURES, read_sessions(plan.out)
    # all rows share the test settings, so any run has them
    test = next(plan.configs[job.name].test for job in plan.runs.values())
    tables = {name: _table(name, table, outcomes[name], plan) for name, table in plan.tables.items()}
    _remove_old_pictures(pictures)
    for name, table in plan.tables.items():
        if outcomes[name]:
            table_picture(table, outcomes[name], pictures / f"{name}.png")
            if block_stats_picture(table, outcomes[name], pictures / f"{name}-blocks.png"):
                tables[name]["block_stats"] = f"{name}-blocks.png"
    result: dict[str, Any] = {
        "command": command,
        "provenance": provenance(),
        "seeds": list(range(plan.seeds)),
        "videos": dict(plan.study.videos) | {"stills": plan.study.stills},
        "views": test.clips * test.crops,
        "tables": tables,
        "claims": [_claim(claim, outcomes) for claim in CLAIMS if claim.table in plan.tables],
        "failed": dict(failed),
        "measured": {
            "seconds": round(sum(s["seconds"] for s in sessions), 1),
            "sessions": len(sessions),
            "runs_made_by": runs_by_provenance(sessions, [job.name for job in plan.runs.values()]),
        },
    }
    write_json(plan.out / "ablations.json", result)
    write_text(plan.out / "ablations.md", page(result, plan.study))
    return result


def outcomes_of(plan: Plan, table: Table, failed: Mapping[str, str]) -> dict[str, Outcome]:
    """Return the results of a table by row name; a row is left out if one of its seeds failed."""
    found = {}
    for row in table.rows:
        key = identity(row, plan.study)
        jobs = [plan.runs[key, seed] for seed in range(plan.seeds)]
        if not any(job.name in failed for job in jobs):
            found[row.name] = read_outcome([job.run for job in jobs], plan.study.data[row.data].spec)
    return found


def _table(name: str, table: Table, outcomes: Mapping[str, Outcome], plan: Plan) -> dict[str, Any]:
    rows = [_row(name, row, outcomes[row.name], plan) for row in table.rows if row.name in outcomes]
    return {
        "title": table.title,
        "note": table.note,
        "rows": rows,
        "without_result": [row.name for row in table.rows if row.name not in outcomes],
    }


def _row(table: str, row: Row, outcome: Outcome, plan: Plan) -> dict[str, Any]:
    return {
        "name": row.name,
        "paper": published(table, row),
        "data": row.data,
        "model": row.model.name,
        "run": identity(row, plan.study),
        "accuracy": _interval(outcome.accuracy),
        "parameters": outcome.cost.parameters,
        "macs": outcome.cost.macs,
        "activation_bytes": outcome.cost.memory.kept,
        "blocks": outcome.blocks,
        "reach": {axis: [_bin(b) for b in reach(outcome, axis)] for axis in AXES},
        "measured": {"ms_per_clip": round(1000 * outcome.seconds, 3)},
    }


def _interval(value: Interval) -> dict[str, Any]:
    # rounded, so that float error of another machine does not show in the published file
    return {
        "value": round(value.value, 4),
        "low": round(value.low, 4),
        "high": round(value.high, 4),
        "seeds": [round(seed, 4) for seed in value.seeds],
    }


def _bin(one: Bin) -> dict[str, Any]:
    return {
        "from": round(one.low, 3),
        "to": round(one.high, 3),
        "videos": one.videos,
        **_interval(one.accuracy),
    }


def _claim(claim: Claim, outcomes: Mapping[str, Mapping[str, Outcome]]) -> dict[str, Any]:
    verdict, parts = judge(claim, outcomes[claim.table])
    return {
        "table": claim.table,
        "statement": claim.statement,
        "source": claim.source,
        "verdict": verdict,
        "parts": [_part(part) for part in parts],
    }


def _part(judged: PartVerdict) -> dict[str, Any]:
    interval = {} if judged.interval is None else _interval(judged.interval)
    return {"rule": judged.part.rule, "verdict": judged.verdict, "text": judged.text, **interval}


def publish_results(out: Path, target: Path) -> None:
    """Copy the page, the JSON document and the pictures to the folder `target`, such as docs/."""
    (target / PICTURES).mkdir(parents=True, exist_ok=True)
    for name in ("ablations.md", "ablations.json"):
        write_text(target / name, (out / name).read_text())
    _remove_old_pictures(target / PICTURES)
    for picture in sorted((out / PICTURES).glob("*.png")):
        shutil.copyfile(picture, target / PICTURES / picture.name)


def _remove_old_pictures(folder: Path) -> None:
    """Remove pictures of block statistics under the name that older versions gave them."""
    for picture in folder.glob("*-vitals.png"):
        picture.unlink()


def without_measurements(value: Any) -> Any:
    """Return a result without the entries that depend on machine or session: "measured" and the provenance."""
    if isinstance(value, Mapping):
        # results of older studies call the provenance a passport
        changing = ("measured", "provenance", "passport")
        return {k: without_measurements(v) for k, v in value.items() if k not in changing}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_measurements(v) for v in value]
    return value
