"""docs/benchmarks.md is what benchmarks/publish.py makes of the result files."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_is_made_from_the_result_files():
    page = runpy.run_path(str(ROOT / "benchmarks" / "publish.py"))["page"]
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(ROOT / "benchmarks" / "results"), (
        "out of date; run python benchmarks/publish.py"
    )
