"""The study's result as a Markdown page."""

from collections.abc import Mapping
from typing import Any

from nlnet.apps.ablation_claims import RULES
from nlnet.apps.ablation_study import Study
from nlnet.data.diagnostic_bounds import additive_bound, blind_rate


def page(result: Mapping[str, Any], study: Study) -> str:
    """docs/ablations.md, whole."""
    blind, bound = 100 * blind_rate(), 100 * additive_bound()
    lines = [
        "# The paper's ablation study in miniature",
        "",
        f"Made by `{result['command']}`; the same numbers as JSON: [ablations.json](ablations.json).",
        "",
        "Each network classifies videos of the diagnostic (`nlnet/data/diagnostic.py`): which digit is on the tile that has",
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
        *(_row(row) for row in table["rows"]),
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


def _row(row: Mapping[str, Any]) -> str:
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
