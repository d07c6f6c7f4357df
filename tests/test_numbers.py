"""The numbers in README.md and docs/paper.md are those of the result files; README's outputs are what the code prints."""

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README, PAPER = ((ROOT / name).read_text() for name in ("README.md", "docs/paper.md"))
RESULTS = json.loads((ROOT / "docs" / "results.json").read_text())
PEERS = json.loads((ROOT / "benchmarks" / "results" / "peers-cpu.json").read_text())
ABLATIONS = json.loads((ROOT / "docs" / "ablations.json").read_text())


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish", ROOT / "docs" / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_what_publish_makes(publish):
    """Both outputs, the insertion's table and the demo's, are those of this code and of docs/results.json."""
    assert publish.readme(README, RESULTS) == README


def test_a_changed_result_changes_the_readme(publish):
    demo = json.loads(json.dumps(RESULTS["demo"]))
    demo["networks"][2]["video_top1"][0] = 12.3
    assert publish.readme(README, RESULTS | {"demo": demo}) != README


def flat(text: str) -> str:
    """One line, without the marks of bold type."""
    return " ".join(text.replace("**", "").split())


def peer(name: str) -> tuple[float, float]:
    """How many times as fast as mmcv's block, and the share of its memory."""
    comparisons = PEERS.get("comparisons") or PEERS["contests"]  # the name in older result files
    (ways,) = (each["ways"] for each in comparisons if each["name"] == name)
    return ways["ours"]["speedup"], ways["ours"]["bytes"] / ways["plain"]["bytes"]


def test_why_is_measured():
    local, control, ours = (statistics.mean(network["video_top1"]) for network in RESULTS["demo"]["networks"])
    shares = RESULTS["other_projects"]["blocks"]
    dot, softmax = (peer(f"{kind}, 1 × 512 × 128 × 128") for kind in ("dot_product", "embedded_gaussian"))
    assert max(dot[1], softmax[1]) <= 0.5, "in half of the memory"
    for sentence in (
        f"a C2D network reaches {local:.1f} %, with a residual block added {control:.1f} %",
        f"with one non-local block of as many parameters {ours:.1f} %",
        f"is {dot[0]:.1f} times as fast with the dot product and {softmax[0]:.1f} times with softmax",
        f"{shares['count']} blocks of four other projects compute the same here to {shares['float32']:.0e}".replace(
            "e-0", "e-"
        ),
    ):
        assert sentence in flat(README)


def test_the_paper_page_says_the_same():
    blocks, networks = RESULTS["other_projects"]["blocks"], RESULTS["other_projects"]["networks"]
    page = flat(PAPER)
    assert f"{blocks['count']} of their own blocks" in page
    assert f"{blocks['float32']:.0e} off in float32".replace("e-0", "e-") in page
    assert f"{networks['difference']:.1e}".replace("e-0", "e-") in page


def test_the_study_is_counted():
    counts = dict.fromkeys(("shown", "not shown", "contradicted"), 0)
    for claim in ABLATIONS["claims"]:
        counts[claim["verdict"]] += 1
    assert (
        f"Of {sum(counts.values())} claims, of the paper and ours, the small study shows {counts['shown']}, does not "
        f"show {counts['not shown']} and contradicts {counts['contradicted']}"
    ) in flat(README)


def test_pictures_are_there():
    for line in README.splitlines():
        if line.startswith("!["):
            assert (ROOT / line.split("(")[1].rstrip(")")).exists(), line
