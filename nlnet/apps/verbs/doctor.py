"""`nlnet doctor`: check that this machine can run nlnet. Each check performs a small instance of the real work."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.text import Text

from nlnet.apps.console import OUT, print_json, table
from nlnet.ops.reference import OPERATORS

Check = Callable[[], str]
"""Returns its finding, and raises an error if it fails."""


def run_doctor(recipe: str | None, *, as_json: bool) -> int:
    """Run `nlnet doctor`: print a line for each check, or how many clips of `recipe` fit in memory.

    Returns:
        The exit code: 1 if a check failed, or if not even one clip fits.
    """
    if recipe is not None:
        # not above: the checks have to run where a package that recipes need is missing
        from nlnet.apps.recipes.catalogue import recipe_or_file
        from nlnet.apps.verbs.memory_fit import show_fits

        return show_fits(recipe, recipe_or_file(recipe), as_json=as_json)
    results = [(name, *attempt(check)) for name, check in CHECKS.items()]
    all_passed = all(ok for _, ok, _ in results)
    if as_json:
        print_json({name: {"ok": ok, "finding": finding} for name, ok, finding in results})
    else:
        rows = [
            [name, Text("ok", style="green") if ok else Text("failed", style="red"), finding]
            for name, ok, finding in results
        ]
        OUT.print(table("nlnet doctor", ["check", "", "finding"], rows, text=range(3)))
        failed = ", ".join(name for name, ok, _ in results if not ok)
        OUT.print("all checks passed" if all_passed else f"failed: {failed}")
    return 0 if all_passed else 1


def attempt(check: Check) -> tuple[bool, str]:
    """Run a check; returns whether it passed, and its finding or its error."""
    try:
        return True, check()
    except Exception as error:  # any error is a finding: the other checks still run
        return False, f"{type(error).__name__}: {error}"


def check_python() -> str:
    """Report Python, the operating system and the number of cores."""
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def check_torch() -> str:
    """Report torch and its GPUs."""
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return f"torch {torch.__version__}, CUDA: {names}"
    return (
        f"torch {torch.__version__}, no CUDA device: training runs on {torch.get_num_threads()} CPU threads"
    )


def check_block() -> str:
    """Compare the fast algorithm of every operator with the definition, on random numbers in float64."""
    from nlnet.ops import nonlocal_operation

    worst = 0.0
    for pairwise, formula in OPERATORS.items():
        theta, phi, g = (torch.randn(1, n, 8, dtype=torch.float64) for n in (30, 20, 20))
        weight = torch.randn(16, dtype=torch.float64) if formula.takes_weight else None
        fast, slow = (
            nonlocal_operation(theta, phi, g, pairwise=pairwise, weight=weight, algorithm=algorithm)
            for algorithm in ("auto", "definition")
        )
        worst = max(worst, float((fast - slow).abs().max()))
    if worst > 1e-12:
        raise RuntimeError(f"the fast algorithms differ from the definition by {worst:.1e}")
    return f"the fast algorithms agree with the definition to {worst:.0e}"


def check_video() -> str:
    """Encode a short H.264 file and decode it by frame index."""
    import av
    import numpy as np

    from nlnet.data import Video

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "check.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(0, 250, 25):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with Video(path) as video:
            frames = video.frames([7, 2])
            count = video.num_frames
    levels = frames.float().mean(dim=(1, 2, 3))
    if count != 10 or (levels - torch.tensor([175.0, 50.0])).abs().max() > 4:
        raise RuntimeError(
            f"encoded 10 frames and decoded {count}; frames 7 and 2 have brightness {levels.tolist()}, expected 175 and 50"
        )
    return f"PyAV {av.__version__} encodes and decodes H.264, and finds frames by index"


def check_disk() -> str:
    """Write a file into the current folder, and report the free space."""
    with tempfile.NamedTemporaryFile(dir="."):
        pass
    free = shutil.disk_usage(".").free / 2**30
    if free < 1:
        raise RuntimeError(f"{free:.1f} GiB free in the current folder; the demo needs 1 GiB")
    return f"{free:.0f} GiB free in the current folder"


def check_packages() -> str:
    """Report the versions of the packages that nlnet uses."""
    names = ("nlnet", "jaxtyping", "pydantic", "typer", "rich", "safetensors", "matplotlib", "scikit-learn")
    return ", ".join(f"{name} {version(name)}" for name in names)


def check_explorer() -> str:
    """Report the packages of `nlnet explore`; they are optional, so the check passes without them."""
    try:
        return ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn"))
    except PackageNotFoundError as error:
        return f"{error.name} is not installed (only `nlnet explore` needs it): pip install 'nlnet[explore]'"


CHECKS: dict[str, Check] = {
    "python": check_python,
    "torch": check_torch,
    "packages": check_packages,
    "explorer": check_explorer,
    "operation": check_block,
    "video": check_video,
    "disk": check_disk,
}
"""By the name in the printed table, in its order."""
