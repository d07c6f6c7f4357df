"""The published page of benchmarks says what the result files say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_is_that_of_the_results():
    page = runpy.run_path(str(ROOT / "benchmarks" / "publish.py"))["page"]
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(ROOT / "benchmarks" / "results"), (
        "python benchmarks/publish.py"
    )
