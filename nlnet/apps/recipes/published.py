"""Accuracies that the paper and its release report, with the recipe of each row; none is our result.

The paper's figures on Kinetics are top-1 and top-5 accuracy on the validation videos of the 400 classes, tested fully
convolutionally on 10 clips (`test.protocol=paper`); the release's are on 10 clips × 3 crops (`released`). Charades has
mAP: trained on train and tested on val, then trained on trainval and tested on test. The networks are those of the
release, which its author says are the paper's; `model.convention=paper model.padding=paper` reads the text of the paper
literally. COCO (Tables 5 and 6) is detection, for which there is no recipe.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a table of the paper, or one model of the release."""

    table: str
    """The table's number, "2a" to "4", or "release"."""
    row: str
    recipe: str
    figures: tuple[float, float]
    """Two percentages; `metrics` has their names."""

    @property
    def protocol(self) -> str:
        """The `test.protocol` that the figures were measured with."""
        return "released" if self.table == "release" else "paper"

    @property
    def place(self) -> str:
        """Where the row stands: "release", or the table of the paper."""
        return "release" if self.table == "release" else f"Table {self.table}"

    @property
    def metrics(self) -> tuple[str, str]:
        """The names of the two figures."""
        return METRICS.get(self.table, ("top-1", "top-5"))

    def __str__(self) -> str:
        figures = ", ".join(
            f"{metric} {figure}" for metric, figure in zip(self.metrics, self.figures, strict=True)
        )
        return f"{self.place}, {self.row}: {figures} (test.protocol={self.protocol})"


METRICS = {"4": ("mAP train/val", "mAP trainval/test")}
"""The names of a table's two figures, where they are not top-1 and top-5."""

_C2D, _C2D101 = ("c2d_r50_32x2", (71.8, 89.7)), ("c2d_r101_32x2", (73.1, 91.0))
_ONE, _FIVE, _FIVE101 = (
    ("c2d_r50_nl1_32x2", (72.7, 90.5)),
    ("c2d_r50_nl5_32x2", (73.8, 91.0)),
    ("c2d_r101_nl5_32x2", (75.1, 91.7)),
)

_TABLES: dict[str, dict[str, tuple[str, tuple[float, float]]]] = {
    "2a": {
        "C2D baseline": _C2D,
        "Gaussian": ("c2d_r50_nl1_gaussian_32x2", (72.5, 90.2)),
        "Gaussian, embedded": _ONE,
        "dot-product": ("c2d_r50_nl1_dot_product_32x2", (72.9, 90.3)),
        "concatenation": ("c2d_r50_nl1_concatenation_32x2", (72.8, 90.5)),
    },
    "2b": {
        "baseline": _C2D,
        "res2": ("c2d_r50_nl1_res2_32x2", (72.7, 90.3)),
        "res3": ("c2d_r50_nl1_res3_32x2", (72.9, 90.4)),
        "res4": _ONE,
        "res5": ("c2d_r50_nl1_res5_32x2", (72.3, 90.1)),
    },
    "2c": {
        "R50 baseline": _C2D,
        "R50 1-block": _ONE,
        "R50 5-block": _FIVE,
        "R50 10-block": ("c2d_r50_nl10_32x2", (74.3, 91.2)),
        "R101 baseline": _C2D101,
        "R101 1-block": ("c2d_r101_nl1_32x2", (74.3, 91.3)),
        "R101 5-block": _FIVE101,
        "R101 10-block": ("c2d_r101_nl10_32x2", (75.1, 91.6)),
    },
    "2d": {
        "R50 baseline": _C2D,
        "R50 space-only": ("c2d_r50_nl5_space_32x2", (72.9, 90.8)),
        "R50 time-only": ("c2d_r50_nl5_time_32x2", (73.1, 90.5)),
        "R50 spacetime": _FIVE,
        "R101 baseline": _C2D101,
        "R101 space-only": ("c2d_r101_nl5_space_32x2", (74.4, 91.3)),
        "R101 time-only": ("c2d_r101_nl5_time_32x2", (74.4, 90.5)),
        "R101 spacetime": _FIVE101,
    },
    "2e": {
        "C2D baseline": _C2D101,
        "I3D 3×3×3": ("i3d333_r101_32x2", (74.1, 91.2)),
        "I3D 3×1×1": ("i3d_r101_32x2", (74.4, 91.1)),
        "NL C2D, 5-block": _FIVE101,
    },
    "2f": {
        "R50 C2D baseline": _C2D,
        "R50 I3D": ("i3d_r50_32x2", (73.3, 90.7)),
        "R50 NL I3D": ("i3d_r50_nl5_32x2", (74.9, 91.6)),
        "R101 C2D baseline": _C2D101,
        "R101 I3D": ("i3d_r101_32x2", (74.4, 91.1)),
        "R101 NL I3D": ("i3d_r101_nl5_32x2", (76.0, 92.1)),
    },
    "2g": {
        "R50 C2D baseline": ("c2d_r50_128x1", (73.8, 91.2)),
        "R50 I3D": ("i3d_r50_128x1", (74.9, 91.7)),
        "R50 NL I3D": ("i3d_r50_nl5_128x1", (76.5, 92.6)),
        "R101 C2D baseline": ("c2d_r101_128x1", (75.3, 91.8)),
        "R101 I3D": ("i3d_r101_128x1", (76.4, 92.7)),
        "R101 NL I3D": ("i3d_r101_nl5_128x1", (77.7, 93.3)),
    },
    "3": {
        "NL I3D, ResNet-50": ("i3d_r50_nl5_128x1", (76.5, 92.6)),
        "NL I3D, ResNet-101": ("i3d_r101_nl5_128x1", (77.7, 93.3)),
    },
    "4": {
        "I3D": ("charades_i3d_r101_128x1", (35.5, 37.2)),
        "NL I3D": ("charades_i3d_r101_nl5_128x1", (37.5, 39.5)),
    },
    # the release's rows are its scripts, in the order of its README
    "release": {
        "run_c2d_baseline_400k_32f": ("c2d_r50_32x2", (72.0, 90.0)),
        "run_c2d_nlnet_400k_32f": ("c2d_r50_nl5_32x2", (73.9, 91.0)),
        "run_i3d_baseline_400k_32f": ("i3d_r50_32x2", (73.6, 90.8)),
        "run_i3d_nlnet_400k_32f": ("i3d_r50_nl5_32x2", (74.9, 91.6)),
        "run_i3d_baseline_affine_400k_128f": ("i3d_r50_128x1", (75.2, 92.0)),
        "run_i3d_nlnet_affine_400k_128f": ("i3d_r50_nl5_128x1", (76.5, 92.7)),
        "run_c2d_baseline_400k": ("c2d_r50_8x8", (71.9, 90.0)),
        "run_c2d_nlnet_400k": ("c2d_r50_nl5_8x8", (74.4, 91.4)),
        "run_i3d_baseline_400k": ("i3d_r50_8x8", (73.4, 90.9)),
        "run_i3d_nlnet_400k": ("i3d_r50_nl5_8x8", (74.7, 91.6)),
        "run_i3d_baseline_affine_400k": ("i3d_r50_32x4", (75.5, 92.0)),
        "run_i3d_nlnet_affine_400k": ("i3d_r50_nl5_32x4", (76.5, 92.6)),
        "run_i3d_baseline_300k": ("i3d_r50_8x8_300k", (73.2, 90.8)),
        "run_i3d_baseline_600k_4gpu": ("i3d_r50_8x8_600k_4gpu", (73.0, 90.4)),
        "run_i3d_baseline_300k_4gpu": ("i3d_r50_8x8_300k_4gpu", (72.0, 90.1)),
    },
}

TABLES: dict[str, tuple[Published, ...]] = {
    table: tuple(
        Published(table=table, row=row, recipe=recipe, figures=figures)
        for row, (recipe, figures) in rows.items()
    )
    for table, rows in _TABLES.items()
}


def published(recipe: str) -> list[Published]:
    """Return the published rows of a recipe, those of the release first."""
    rows = [row for table in TABLES.values() for row in table if row.recipe == recipe]
    return sorted(rows, key=lambda row: row.table != "release")
