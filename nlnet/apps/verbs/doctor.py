"""`nlnet doctor`: does this machine have what nlnet needs? Each check does the thing itself, in small."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.text import Text

from nlnet.apps.console import OUT, table
from nlnet.ops.reference import OPERATORS

Check = Callable[[], str]


def run_doctor(recipe: str | None, *, as_json: bool) -> int:
    """Print a line per check, or what fits of a recipe; exit code 1 if a check fails or nothing fits."""
    from nlnet.apps.console import print_json

    if recipe is not None:
        from nlnet.apps.recipes.catalogue import recipe_or_file
        from nlnet.apps.verbs.memory_fit import show_fits

        return show_fits(recipe, recipe_or_file(recipe), as_json=as_json)
    results = [(name, *attempt(check)) for name, check in CHECKS.items()]
    sound = all(ok for _, ok, _ in results)
    if as_json:
        print_json({name: {"ok": ok, "finding": finding} for name, ok, finding in results})
    else:
        rows = [
            [name, Text("ok", style="green") if ok else Text("fails", style="red"), finding]
            for name, ok, finding in results
        ]
        OUT.print(table("nlnet doctor", ["check", "", "finding"], rows))
        OUT.print("everything needed works" if sound else "see the failing lines above")
    return 0 if sound else 1


def attempt(check: Check) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:  # a doctor reports every failure, whatever its kind
        return False, f"{type(error).__name__}: {error}"


def check_python() -> str:
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def check_torch() -> str:
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return f"torch {torch.__version__}, CUDA: {names}"
    return (
        f"torch {torch.__version__}, no CUDA device: training runs on {torch.get_num_threads()} CPU threads"
    )


def check_block() -> str:
    """A forward and backward pass of every operator against the definition."""
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
        raise RuntimeError(f"the fast operators differ from the definition by {worst:.1e}")
    return f"the fast operators equal the definition to {worst:.0e}"


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
            f"10 frames encoded, {count} found; frames 7 and 2 have brightness {levels.tolist()}"
        )
    return f"PyAV {av.__version__} encodes and decodes H.264, frame by frame"


def check_disk() -> str:
    with tempfile.NamedTemporaryFile(dir="."):
        pass
    free = shutil.disk_usage(".").free / 2**30
    if free < 1:
        raise RuntimeError(f"{free:.1f} GiB free here; the demo needs 1 GiB")
    return f"{free:.0f} GiB free here"


def check_packages() -> str:
    names = ("nlnet", "jaxtyping", "pydantic", "typer", "rich", "safetensors", "matplotlib", "scikit-learn")
    return ", ".join(f"{name} {version(name)}" for name in names)


def check_explorer() -> str:
    """Optional, so that lacking it is no failure."""
    try:
        return ", ".join(f"{name} {version(name)}" for name in ("fastapi", "uvicorn"))
    except PackageNotFoundError as error:
        return f"{error.name} is not installed; `nlnet explore` needs it: pip install 'nlnet[explore]'"


CHECKS: dict[str, Check] = {
    "python": check_python,
    "torch": check_torch,
    "packages": check_packages,
    "explorer": check_explorer,
    "operation": check_block,
    "video": check_video,
    "disk": check_disk,
}
