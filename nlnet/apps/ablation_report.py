"""The study's tables from the runs' own files: JSON, a Markdown page, a picture a table.

Everything but "measured" and the passport is a function of the runs, the same whether they were stopped on the way
or not.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.apps.ablation_claims import CLAIMS, Claim
from nlnet.apps.ablation_figures import table_picture, vitals_picture
from nlnet.apps.ablation_page import page
from nlnet.apps.ablation_plan import Plan, identity
from nlnet.apps.ablation_results import Bin, Outcome, reach, read_outcome
from nlnet.apps.ablation_sessions import makers, read_sessions
from nlnet.apps.ablation_stats import Interval
from nlnet.apps.ablation_study import Row, Table
from nlnet.apps.ablation_tables import published
from nlnet.apps.ablation_verdicts import Finding, judge
from nlnet.engine.passport import passport
from nlnet.engine.rundir import write_json, write_text

AXES = ("space", "time")
PICTURES = "ablations"


def report(plan: Plan, *, failed: Mapping[str, str], command: str) -> dict[str, Any]:
    """Write ablations.json, ablations.md and the pictures under `plan.out`; the content of the JSON.

    Args:
        failed: reasons by the name of a run; its row is left out of tables and claims, and named.
        command: that is at work here.
    """
    outcomes = {name: outcomes_of(plan, table, failed) for name, table in plan.tables.items()}
    pictures, sessions = plan.out / PICTURES, read_sessions(plan.out)
    test = next(plan.configs[job.name].test for job in plan.runs.values())
    tables = {name: _table(name, table, outcomes[name], plan) for name, table in plan.tables.items()}
    for name, table in plan.tables.items():
        if outcomes[name]:
            table_picture(table, outcomes[name], pictures / f"{name}.png")
            if vitals_picture(table, outcomes[name], pictures / f"{name}-vitals.png"):
                tables[name]["vitals"] = f"{name}-vitals.png"
    result: dict[str, Any] = {
        "command": command,
        "passport": passport(),
        "seeds": list(range(plan.seeds)),
        "videos": dict(plan.study.videos) | {"stills": plan.study.stills},
        "views": test.clips * test.crops,
        "tables": tables,
        "claims": [_claim(claim, outcomes) for claim in CLAIMS if claim.table in plan.tables],
        "failed": dict(failed),
        "measured": {
            "seconds": round(sum(s["seconds"] for s in sessions), 1),
            "sessions": len(sessions),
            "runs_made_by": makers(sessions, [job.name for job in plan.runs.values()]),
        },
    }
    write_json(plan.out / "ablations.json", result)
    write_text(plan.out / "ablations.md", page(result, plan.study))
    return result


def outcomes_of(plan: Plan, table: Table, failed: Mapping[str, str]) -> dict[str, Outcome]:
    """By row name; rows of which a seed failed are left out."""
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
    verdict, findings = judge(claim, outcomes[claim.table])
    return {
        "table": claim.table,
        "statement": claim.statement,
        "source": claim.source,
        "verdict": verdict,
        "parts": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    interval = {} if finding.interval is None else _interval(finding.interval)
    return {"rule": finding.part.rule, "verdict": finding.verdict, "text": finding.text, **interval}


def publish_results(out: Path, target: Path) -> None:
    """Copy page, JSON and pictures to `target`, such as docs/."""
    (target / PICTURES).mkdir(parents=True, exist_ok=True)
    for name in ("ablations.md", "ablations.json"):
        write_text(target / name, (out / name).read_text())
    for picture in sorted((out / PICTURES).glob("*.png")):
        shutil.copyfile(picture, target / PICTURES / picture.name)


def without_measurements(value: Any) -> Any:
    """A result without what differs from one machine and moment to the next: "measured" and "passport"."""
    if isinstance(value, Mapping):
        return {k: without_measurements(v) for k, v in value.items() if k not in ("measured", "passport")}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_measurements(v) for v in value]
    return value
