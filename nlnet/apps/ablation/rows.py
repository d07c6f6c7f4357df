"""The tables of the ablation study, row by row: `TABLES["2d"]` is Table 2d.

A row is a network, the data set that it is trained on, and the name of the paper's row that it reproduces. All rows are
trained by one recipe (`study.Study`), from the 2-D network of their depth. A row that stands in several tables is the
same model on the same data, and is trained once.
"""

from collections.abc import Mapping
from typing import Any

from nlnet.apps.ablation.study import Row, Table
from nlnet.apps.recipes.published import TABLES as PAPER
from nlnet.engine.config import ModelConfig


def published(table: str, row: Row) -> tuple[float, float] | None:
    """Return the paper's top-1 and top-5 of a row on Kinetics-400, percent; None for a row of ours."""
    if row.paper is None:
        return None
    return next(p.figures for p in PAPER[table] if p.row == row.paper)


def net(name: str, options: Mapping[str, Any] | None = None) -> ModelConfig:
    """Return a network of the study: the paper's block, but with the release's softmax scale 1/√d, which trains faster."""
    model = ModelConfig(
        name=name, variant="8x8", dropout=0.0, convention="released", pool_position="after", init="he"
    )
    return model.model_copy(update=dict(options or {}))


def one_block(
    options: Mapping[str, Any] | None = None, *, scale: str = "c2d_mini20", kind: str = "nl"
) -> ModelConfig:
    """Return a network with one block in res3, the study's default stage."""
    return net(f"{scale}_{kind}1", {"stage": "res3"} | dict(options or {}))


# the three networks that most tables compare: no block, a residual block of the same size instead, a non-local block
LOCAL, CONTROL, NONLOCAL = net("c2d_mini20"), one_block(kind="rb"), one_block()
CONTROL_NAME = "residual block (control)"


def _rows_2d() -> tuple[Row, ...]:
    """Return the rows of Table 2d, for each of our three tasks; the paper has one task."""
    rows = []
    for task in ("spacetime", "space", "time"):
        # only this task needs space and time at once, as the paper's videos do: its rows carry the paper's figures
        figures = task == "spacetime"
        baseline = "R50 baseline" if figures else None
        rows.append(Row(name=f"{task} task: baseline", model=LOCAL, data=task, paper=baseline))
        if figures:
            rows.append(Row(name=f"{task} task: {CONTROL_NAME}", model=CONTROL))
        rows += [
            Row(
                name=f"{task} task: {axis}",
                model=one_block({} if axis == "spacetime" else {"axis": axis}),
                data=task,
                paper=("R50 spacetime" if axis == "spacetime" else f"R50 {axis}-only") if figures else None,
            )
            for axis in ("space", "time", "spacetime")
        ]
    return tuple(rows)


def _rows_2c() -> tuple[Row, ...]:
    """Return the rows of Table 2c: 0, 1, 5 and 10 blocks at two depths, and residual blocks as a control."""
    rows = []
    for scale, paper in (("mini38", "R50"), ("mini56", "R101")):
        layers = scale.removeprefix("mini")
        rows += [
            Row(name=f"{layers} layers: baseline", model=net(f"c2d_{scale}"), paper=f"{paper} baseline"),
            Row(name=f"{layers} layers: 5 residual blocks (control)", model=net(f"c2d_{scale}_rb5")),
            Row(
                name=f"{layers} layers: 1 block",
                model=one_block(scale=f"c2d_{scale}"),
                paper=f"{paper} 1-block",
            ),
        ]
        rows += [
            Row(
                name=f"{layers} layers: {count} blocks",
                model=net(f"c2d_{scale}_nl{count}"),
                paper=f"{paper} {count}-block",
            )
            for count in (5, 10)
        ]
    return tuple(rows)


CONTROL_ROW = Row(name=CONTROL_NAME, model=CONTROL)
TABLES: dict[str, Table] = {
    "2a": Table(
        title="Instantiations: one block in res3",
        rows=(
            Row(name="baseline", model=LOCAL, paper="C2D baseline"),
            CONTROL_ROW,
            Row(name="Gaussian", model=one_block({"pairwise": "gaussian"}), paper="Gaussian"),
            Row(name="embedded Gaussian", model=NONLOCAL, paper="Gaussian, embedded"),
            Row(name="dot product", model=one_block({"pairwise": "dot_product"}), paper="dot-product"),
            Row(name="concatenation", model=one_block({"pairwise": "concatenation"}), paper="concatenation"),
        ),
    ),
    "2b": Table(
        title="Stages: one block",
        rows=(
            Row(name="baseline", model=LOCAL, paper="baseline"),
            CONTROL_ROW,
            *(Row(name=s, model=one_block({"stage": s}), paper=s) for s in ("res2", "res3", "res4", "res5")),
        ),
    ),
    "2c": Table(title="How many blocks, in res3 and res4, at two depths", rows=_rows_2c()),
    "2d": Table(title="Axes: one block that sees space, time or both, on three tasks", rows=_rows_2d()),
    "2e": Table(
        title="Non-local blocks against 3-D convolution",
        rows=(
            Row(name="C2D", model=LOCAL, paper="C2D baseline"),
            Row(name="5 residual blocks (control)", model=net("c2d_mini20_rb5")),
            Row(name="I3D 3×3×3", model=net("i3d333_mini20"), paper="I3D 3×3×3"),
            Row(name="I3D 3×1×1", model=net("i3d_mini20"), paper="I3D 3×1×1"),
            Row(name="NL C2D, 1 block", model=NONLOCAL),
            Row(name="NL C2D, 5 blocks", model=net("c2d_mini20_nl5"), paper="NL C2D, 5-block"),
        ),
    ),
    "2f": Table(
        title="Non-local blocks and 3-D convolution together",
        rows=(
            Row(name="C2D", model=LOCAL, paper="R50 C2D baseline"),
            Row(name="I3D", model=net("i3d_mini20"), paper="R50 I3D"),
            Row(name="I3D, 5 residual blocks (control)", model=net("i3d_mini20_rb5")),
            Row(name="NL C2D", model=net("c2d_mini20_nl5")),
            Row(name="NL I3D", model=net("i3d_mini20_nl5"), paper="R50 NL I3D"),
        ),
    ),
    "2g": Table(
        title="Longer clips, where the related moments are further apart (time task)",
        note="The first rows see 8 frames of 18, the others 16 of 34, both every second one. In the paper: 32 and 128 frames.",
        rows=tuple(
            Row(name=f"{clip}: {name}", model=model, data=data, paper=paper if data == "long" else None)
            for clip, data in (("short", "time"), ("long", "long"))
            for name, model, paper in (
                ("C2D", LOCAL, "R50 C2D baseline"),
                ("I3D", net("i3d_mini20"), "R50 I3D"),
                ("NL I3D", one_block(scale="i3d_mini20"), "R50 NL I3D"),
                *((("NL C2D", NONLOCAL, None), (CONTROL_NAME, CONTROL, None)) if clip == "long" else ()),
            )
        ),
    ),
    "conventions": Table(
        title="The three conventions of the block",
        note="The study's own is the paper's with the release's softmax scale.",
        rows=(
            Row(name="baseline", model=LOCAL),
            CONTROL_ROW,
            Row(name="the study's", model=NONLOCAL),
            *(
                Row(name=name, model=one_block({"convention": name, "pool_position": None, "init": None}))
                for name in ("paper", "released", "mmcv")
            ),
        ),
    ),
    "reach": Table(
        title="Reach in space: items anywhere in a larger frame",
        rows=(
            Row(name="C2D", model=LOCAL, data="wide"),
            Row(name=CONTROL_NAME, model=CONTROL, data="wide"),
            Row(name="NL C2D, 1 block", model=NONLOCAL, data="wide"),
        ),
    ),
}
