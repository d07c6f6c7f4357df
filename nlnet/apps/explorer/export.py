"""One HTML file that needs no server: the page with its scripts, and the answers for a grid of positions, inside.

It holds one view of each video and run, the centre crop of the middle clip, and the scores of all. A block answers
for its cells, so positions of the grid that fall into one cell share a row.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

from nlnet.apps.explorer.encoding import byte_rows
from nlnet.apps.explorer.server import MODULES, page_file
from nlnet.apps.explorer.session import Session
from nlnet.attention.observe import Observation
from nlnet.engine.evaluation.video_views import middle_view
from nlnet.engine.runs.atomic_write import write_text

AT_ONCE = 256
"""Positions whose rows are in memory at a time."""


def export_page(
    session: Session, path: Path, *, grid: int, on_step: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Write the page with every run's view of every video; its size in bytes.

    Args:
        grid: positions along the height and the width of a frame; every frame has grid × grid of them.
        on_step: called with (done, total) after each scored view.

    Raises:
        ValueError: no video, or a grid below 1.
    """
    index = session.index()
    if not index["videos"]:
        raise ValueError("--export: no video was given; name the videos that the page is to hold")
    if grid < 1:
        raise ValueError(f"--grid: got {grid}, expected 1 or more positions along each side of a frame")
    pairs = list(product(range(len(index["runs"])), range(len(index["videos"]))))
    counts = [run["clips"] * run["crops"] for run in index["runs"]]
    total, done = sum(counts[run] for run, _ in pairs), 0
    entries = {}
    for run, video in pairs:
        facts = index["runs"][run]
        entry = kept_view(session, run, video, middle_view(facts["clips"], facts["crops"]), grid)
        for number in range(counts[run]):
            entry["scores"].append([round(p, 6) for p in session.scores(run, video, number)])
            done += 1
            on_step(done, total)
        entries[f"{run}/{video}"] = entry
    page = self_contained(index | {"entries": entries})
    write_text(path, page)
    return len(page.encode())


def kept_view(session: Session, run: int, video: int, view: int, grid: int) -> dict[str, Any]:
    """The answers about one view: its frames, its blocks, and rows for every frame's grid × grid positions."""
    clip, blocks = session.clip(run, video, view), session.blocks(run, video, view)
    frames, height, width = clip["size"]
    places = [list(range(frames)), spread(height, grid), spread(width, grid)]
    rows = kept_rows(session.observation(run, video, view), places) if blocks else {}
    return {"view": view, "clip": clip, "blocks": blocks, "places": places, "rows": rows, "scores": []}


def spread(size: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 0 … size − 1; each position once."""
    return sorted({(2 * i + 1) * size // (2 * count) for i in range(count)})


def kept_rows(seen: Observation, places: list[list[int]]) -> dict[str, Any]:
    """For each block the rows of the cells that answer for the positions t × y × x in `places`.

    `cells[axis][i]` counts the cells along that axis up to the one of places[axis][i], from 0; the row of a
    position is then number (t·Y + y)·X + x of these counts, with Y and X the numbers of cells.
    """
    cells = {path: [[0] * len(axis) for axis in places] for path in seen.paths}
    centres: dict[str, list[list[float]]] = {path: [] for path in seen.paths}
    for path, axis in product(seen.paths, range(3)):
        along = [tuple(p if a == axis else 0 for a in range(3)) for p in places[axis]]
        found = [seen.query_cell(path, position)[axis] for position in along]
        ranks = {cell: rank for rank, cell in enumerate(sorted(set(found)))}
        cells[path][axis] = [ranks[cell] for cell in found]
        middle = {ranks[c]: seen.query_centre(path, p)[axis] for c, p in zip(found, along, strict=True)}
        centres[path].append([middle[rank] for rank in range(len(ranks))])
    chosen: dict[str, dict[tuple[int, ...], torch.Tensor]] = {path: {} for path in seen.paths}
    indices = list(product(*(range(len(axis)) for axis in places)))
    for start in range(0, len(indices), AT_ONCE):
        part = indices[start : start + AT_ONCE]
        rows = seen.rows([tuple(axis[i] for axis, i in zip(places, index, strict=True)) for index in part])
        for path in seen.paths:
            for index, row in zip(part, rows[path], strict=True):
                chosen[path].setdefault(
                    tuple(axis[i] for axis, i in zip(cells[path], index, strict=True)), row.clone()
                )
    return {
        path: {
            "cells": cells[path],
            "centres": centres[path],
            **byte_rows(
                torch.stack([chosen[path][c] for c in sorted(chosen[path])]), signed=seen.signed(path)
            ),
        }
        for path in seen.paths
    }


def self_contained(kept: dict[str, Any]) -> str:
    """The page with its style, its scripts and the answers `kept` inside, and a policy that allows nothing else."""
    style, script = page_file("style.css"), joined(MODULES)
    icon = base64.b64encode(page_file("icon.svg").encode()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(kept, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        '<meta charset="utf-8">': f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">',
        'href="icon.svg"': f'href="data:image/svg+xml;base64,{icon}"',
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="app.js"></script>': (
            f'<script type="application/json" id="kept">{data}</script><script type="module">{script}</script>'
        ),
    }
    page = page_file("index.html")
    for old, new in parts.items():
        assert page.count(old) == 1, f"the page has {old} {page.count(old)} times"
        page = page.replace(old, new)
    return page


def joined(modules: tuple[str, ...]) -> str:
    """The modules as one: their imports from each other go, and what they export stays where it is."""
    text = "\n".join(page_file(name) for name in modules)
    text = re.sub(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', "", text, flags=re.MULTILINE)
    text = re.sub(r"^export (?=const |function |async function |class )", "", text, flags=re.MULTILINE)
    assert not re.search(r"^(import|export)\b|</script", text, flags=re.MULTILINE)
    return text


def digest(text: str) -> str:
    """What a content security policy calls this text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
