"""Export the explorer's page as one HTML file that works without a server, with the attention from a grid of positions.

The file holds one view of each video and run (the centre crop of the middle clip), and the class scores of all views.
Positions of the grid that fall into the same query cell of a block share a row of weights.
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

from nlnet.apps.explorer.encoding import encode_rows_as_bytes
from nlnet.apps.explorer.server import MODULES, page_file
from nlnet.apps.explorer.session import Session
from nlnet.attention.observe import Observation
from nlnet.engine.evaluation.video_views import middle_view
from nlnet.engine.runs.atomic_write import write_text
from nlnet.errors import NlnetError

BATCH = 256
"""Positions whose rows are computed at the same time; more would take more memory."""


def export_page(
    session: Session, path: Path, *, grid: int, on_step: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Write the page with one view for each run and video, and return its size in bytes.

    Args:
        grid: positions along the height and the width of a frame; every frame has grid × grid of them.
        on_step: called with (done, total) after each scored view.

    Raises:
        NlnetError: no video, or a grid below 1.
    """
    index = session.index()
    if not index["videos"]:
        raise NlnetError("--export: no video was given; give the videos that the page should contain")
    if grid < 1:
        raise NlnetError(f"--grid: got {grid}, expected 1 or more positions along each side of a frame")
    pairs = list(product(range(len(index["runs"])), range(len(index["videos"]))))
    counts = [run["clips"] * run["crops"] for run in index["runs"]]
    total, done = sum(counts[run] for run, _ in pairs), 0
    entries = {}
    for run, video in pairs:
        facts = index["runs"][run]
        entry = exported_view(session, run, video, middle_view(facts["clips"], facts["crops"]), grid)
        for number in range(counts[run]):
            entry["scores"].append([round(p, 6) for p in session.scores(run, video, number)])
            done += 1
            on_step(done, total)
        entries[f"{run}/{video}"] = entry
    page = single_file_page(index | {"entries": entries})
    write_text(path, page)
    return len(page.encode())


def exported_view(session: Session, run: int, video: int, view: int, grid: int) -> dict[str, Any]:
    """The exported data of one view: its frames, its blocks, and weights from grid × grid positions of every frame."""
    clip, blocks = session.clip(run, video, view), session.blocks(run, video, view)
    frames, height, width = clip["size"]
    positions = [list(range(frames)), grid_coordinates(height, grid), grid_coordinates(width, grid)]
    rows = exported_rows(session.observation(run, video, view), positions) if blocks else {}
    return {"view": view, "clip": clip, "blocks": blocks, "positions": positions, "rows": rows, "scores": []}


def grid_coordinates(size: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 0 … size − 1, without repetitions."""
    return sorted({(2 * i + 1) * size // (2 * count) for i in range(count)})


def exported_rows(seen: Observation, positions: list[list[int]]) -> dict[str, Any]:
    """For each block, one row of weights for each query cell that holds a position of the grid t × y × x.

    Only cells that some position falls into have a row. `cells[axis][i]` is the rank of the cell of
    positions[axis][i] among these along that axis, from 0; `centres[axis]` are their centres. The row of the cell with
    ranks (t, y, x) has number (t·Y + y)·X + x, where Y and X are the numbers of cells along the height and the width.
    """
    cells = {path: [[0] * len(axis) for axis in positions] for path in seen.paths}
    centres: dict[str, list[list[float]]] = {path: [] for path in seen.paths}
    for path, axis in product(seen.paths, range(3)):
        # the cell of a position is found axis by axis, so the other coordinates may be anything
        along = [tuple(p if a == axis else 0 for a in range(3)) for p in positions[axis]]
        found = [seen.query_cell(path, position)[axis] for position in along]
        ranks = {cell: rank for rank, cell in enumerate(sorted(set(found)))}
        cells[path][axis] = [ranks[cell] for cell in found]
        centre = {ranks[c]: seen.query_centre(path, p)[axis] for c, p in zip(found, along, strict=True)}
        centres[path].append([centre[rank] for rank in range(len(ranks))])
    chosen: dict[str, dict[tuple[int, ...], torch.Tensor]] = {path: {} for path in seen.paths}
    indices = list(product(*(range(len(axis)) for axis in positions)))
    for start in range(0, len(indices), BATCH):
        batch = indices[start : start + BATCH]
        rows = seen.rows(
            [tuple(axis[i] for axis, i in zip(positions, index, strict=True)) for index in batch]
        )
        for path in seen.paths:
            for index, row in zip(batch, rows[path], strict=True):
                cell = tuple(axis[i] for axis, i in zip(cells[path], index, strict=True))
                chosen[path].setdefault(cell, row.clone())  # a copy, so that the batch can be freed
    return {
        path: {
            "cells": cells[path],
            "centres": centres[path],
            # sorted tuples of ranks are in the order of the row numbers above
            **encode_rows_as_bytes(
                torch.stack([chosen[path][c] for c in sorted(chosen[path])]), signed=seen.signed(path)
            ),
        }
        for path in seen.paths
    }


def single_file_page(answers: dict[str, Any]) -> str:
    """The page with its style, scripts and `answers` inside, and a content security policy that allows only those."""
    style, script = page_file("style.css"), bundle_modules(MODULES)
    icon = base64.b64encode(page_file("icon.svg").encode()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{csp_hash(style)}'; script-src '{csp_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" is escaped, so that no text in the data can end its <script> element
    data = json.dumps(answers, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        '<meta charset="utf-8">': f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">',
        'href="icon.svg"': f'href="data:image/svg+xml;base64,{icon}"',
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="app.js"></script>': (
            f'<script type="application/json" id="answers">{data}</script><script type="module">{script}</script>'
        ),
    }
    page = page_file("index.html")
    for old, new in parts.items():
        assert page.count(old) == 1, f"index.html has {old} {page.count(old)} times"
        page = page.replace(old, new)
    return page


def bundle_modules(modules: tuple[str, ...]) -> str:
    """Join JavaScript modules into one script: `import` lines and the keyword `export` are removed."""
    text = "\n".join(page_file(name) for name in modules)
    text = re.sub(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', "", text, flags=re.MULTILINE)
    text = re.sub(r"^export (?=const |function |async function |class )", "", text, flags=re.MULTILINE)
    assert not re.search(r"^(import|export)\b|</script", text, flags=re.MULTILINE)
    return text


def csp_hash(text: str) -> str:
    """The hash by which a content security policy allows an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
