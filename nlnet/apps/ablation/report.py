"""The study's tables from the runs' own files: JSON, a Markdown page, a picture a table.

Everything but "measured" and the passport is a function of the runs, the same whether they were stopped on the way
or not.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlnet.apps.ablation.claims import CLAIMS, RULES, Claim
from nlnet.apps.ablation.figures import table_picture, vitals_picture
from nlnet.apps.ablation.plan import Plan, identity
from nlnet.apps.ablation.results import Bin, Outcome, reach, read_outcome
from nlnet.apps.ablation.rows import published
from nlnet.apps.ablation.sessions import makers, read_sessions
from nlnet.apps.ablation.statistics import Interval
from nlnet.apps.ablation.study import Row, Study, Table
from nlnet.apps.ablation.verdicts import Finding, judge
from nlnet.data.diagnostic.bounds import additive_bound, blind_rate
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.engine.runs.provenance import passport

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


def page(result: Mapping[str, Any], study: Study) -> str:
    """docs/ablations.md, whole."""
    blind, bound = 100 * blind_rate(), 100 * additive_bound()
    lines = [
        "# The paper's ablation study in miniature",
        "",
        f"Made by `{result['command']}`; the same numbers as JSON: [ablations.json](ablations.json).",
        "",
        "Each network classifies videos of the diagnostic (`nlnet/data/diagnostic/task.py`): which digit is on the tile that has",
        "the colour of the cue? It takes a relation between two items. Guessing reaches 10 %, reading the digits without",
        f"the cue {blind:g} %, and no sum of local evidence more than {bound:g} %. The paper's column is Kinetics-400",
        "validation top-1, quoted; ours is `video_top1` on held-out handwritings. The two are not comparable in size,",
        "only in direction.",
        "",
        "## What became of the claims",
        "",
        "| table | claim | verdict | where the claim is from |",
        "|---|---|---|---|",
        *(
            f"| {c['table']} | {c['statement']} | **{c['verdict']}** | {c['source']} |"
            for c in result["claims"]
        ),
        "",
    ]
    if result["failed"]:
        lines += ["Runs that failed, whose rows are missing:", ""]
        lines += [f"- {name}: {reason}" for name, reason in result["failed"].items()] + [""]
    for name, table in result["tables"].items():
        lines += _section(name, table, [c for c in result["claims"] if c["table"] == name])
    return "\n".join([*lines, *_method(result, study)])


def _section(name: str, table: Mapping[str, Any], claims: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"## {name}. {table['title']}",
        "",
        *([table["note"], ""] if table["note"] else []),
        "| network | paper, top-1 % | ours by seed, % | mean [95 %], % | parameters, M | MACs, M | activations, MB | ms/clip |",
        "|---|---|---|---|---|---|---|---|",
        *(_markdown_row(row) for row in table["rows"]),
        "",
    ]
    if table["without_result"]:
        lines += [f"Without a result: {', '.join(table['without_result'])}.", ""]
    if table["rows"]:
        lines += [f"![{table['title']}](ablations/{name}.png)", ""]
    if "vitals" in table:
        lines += [f"![what the blocks did in training](ablations/{table['vitals']})", ""]
    for claim in claims:
        lines.append(f"- **{claim['verdict']}**: {claim['statement']} ({claim['source']})")
        lines += [f"  - {part['verdict']} ({part['rule']}): {part['text']}" for part in claim["parts"]]
    return [*lines, ""] if claims else lines


def _markdown_row(row: Mapping[str, Any]) -> str:
    value = row["accuracy"]
    cells = [
        row["name"],
        "–" if row["paper"] is None else f"{row['paper'][0]:.1f}",
        " / ".join(f"{seed:.1f}" for seed in value["seeds"]),
        f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}]",
        f"{row['parameters'] / 1e6:.3f}",
        f"{row['macs'] / 1e6:.1f}",
        f"{row['activation_bytes'] / 1e6:.2f}",
        f"{row['measured']['ms_per_clip']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _method(result: Mapping[str, Any], study: Study) -> list[str]:
    spec, passport, videos = study.stills_spec, result["passport"], result["videos"]
    return [
        "## How",
        "",
        f"Videos of {spec.height}×{spec.width} pixels, items of {spec.tile}; {videos['train']} for training, "
        f"{videos['test']} for testing on {result['views']} views each. A 2-D network of each depth learns digits and",
        f"colours on {videos['stills']} single frames; every row is inflated from it and fine-tuned for {study.iterations} iterations of",
        f"{study.batch} clips by one recipe: SGD, rate 0.2 (a quarter of it for what was transferred), {study.warmup} iterations of warm-up,",
        "cosine. None of it was tuned for a row; it was chosen by validation videos, of these and of other sets",
        "(docs/log.md). Blocks start as the identity, by the paper's convention with the release's softmax scale 1/√d, except",
        "where a row says otherwise. Seeds are of fine-tuning; 2-D networks and videos are the same for all.",
        "",
        "Intervals are 95 %: Wilson's over the test videos for an accuracy, the normal one of the video-by-video differences",
        "for a comparison, both of the mean over seeds. They do not cover other seeds, so verdicts also ask every seed:",
        "",
        *(f"- *{rule}*: {meaning}." for rule, meaning in RULES.items()),
        "",
        "A claim is shown where all its parts are, contradicted where the opposite of a part holds by the same rule, and",
        "not shown otherwise. Reach is the accuracy by the distance from the cue to the digit that it asks for. Activations",
        "are what training keeps of one clip for the backward pass; ms/clip is training beside whatever else ran.",
        "",
        *_makers(result["measured"], passport),
        "",
    ]


def _makers(measured: Mapping[str, Any], passport: Mapping[str, str]) -> list[str]:
    """Which commits and machines made the runs, and which these tables."""
    lines = [
        f"{maker['runs']} runs: {'not recorded' if maker['passport'] is None else _passport(maker['passport'])}."
        for maker in measured["runs_made_by"]
    ]
    count = measured["sessions"]
    took = f"{measured['seconds'] / 60:.1f} min in {count} session{'' if count == 1 else 's'} of training and testing"
    return [*lines, f"Tables: {_passport(passport)}. {took}."]


def _passport(passport: Mapping[str, str]) -> str:
    return (
        f"commit {passport['commit']}, {passport['machine']}, Python {passport['python']}, "
        f"torch {passport['torch']}, nlnet {passport['nlnet']}"
    )
