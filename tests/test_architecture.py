"""The tree holds: imports go down, no file is part of an import circle, files and folders stay small."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nlnet"
FLOORS = {
    "errors": 0,
    "layers": 1,
    "ops": 2,
    "axes": 3,
    "block_options": 3,
    "block": 4,
    "block_stats": 5,
    "insertion": 5,
    "attention": 5,
    "models": 6,
    "weights": 7,
    "zoo": 8,
    "compatibility": 9,
    "data": 6,
    "engine": 10,
    "apps": 11,
    "__main__": 12,
}
"""Of a file or folder of the package: it imports from lower floors or from itself."""
INSIDE = {
    "engine": {
        "signals": 0,
        "runs": 2,
        "config": 1,
        "distributed": 1,
        "network": 3,
        "evaluation": 4,
        "training": 5,
    },
    "apps": {
        "console": 0,
        "plots": 0,
        "recipes": 1,
        "jobs": 2,
        "report": 3,
        "attend": 3,
        "verbs": 4,
        "bench": 4,
        "explorer": 4,
        "notebook": 5,
        "ablation": 5,
        "demo": 5,
        "cli": 6,
    },
}
"""The same inside the two folders that hold folders."""
TORCH_ONLY = {"torch", "jaxtyping"}
NEEDS_TORCH_ALONE = {
    "errors", "layers", "ops", "axes", "block_options", "block", "block_stats", "insertion", "attention",
    "models", "weights", "zoo", "compatibility",
}  # fmt: skip
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
MOST_LINES, MEDIAN_LINES, MOST_FILES = 350, 140, 14


def parts(path: Path) -> tuple[str, ...]:
    """("engine", "runs", "lock") of nlnet/engine/runs/lock.py."""
    names = path.relative_to(ROOT).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


def imported(path: Path, known: set[str]) -> set[str]:
    """Dotted names of every module that the file imports, wherever the import stands; `known` are the package's own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & known
            names |= modules if len(modules) == len(node.names) else modules | {node.module}
    return names


MODULES = {".".join(("nlnet", *parts(path))): path for path in FILES}
IMPORTS = {module: imported(path, set(MODULES)) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    mine = module.split(".")[1:]
    for name in IMPORTS[module]:
        if name.split(".")[0] != "nlnet":
            continue
        if name == "nlnet":
            assert mine[0] == "apps", f"{module} imports the package's front door; name the module"
            continue
        other = name.split(".")[1:]
        if other[0] != mine[0]:
            assert FLOORS[other[0]] < FLOORS[mine[0]], f"{module} (floor {FLOORS[mine[0]]}) imports {name}"
        elif mine[0] in INSIDE and len(mine) > 1 and len(other) > 1 and other[1] != mine[1]:
            floors = INSIDE[mine[0]]
            assert floors[other[1]] < floors[mine[1]], (
                f"{module} (floor {floors[mine[1]]} of {mine[0]}) imports {name}"
            )


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one file (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in graph[module]:
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_no_file_is_part_of_an_import_circle():
    graph = {
        module: {name for name in names if name in MODULES} - {module} for module, names in IMPORTS.items()
    }
    assert circles(graph) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_files_and_folders_are_small():
    lines = {path: path.read_text().count("\n") for path in FILES if path.name != "__init__.py"}
    long = {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines"
    assert statistics.median(lines.values()) <= MEDIAN_LINES
    folders = {path.parent for path in FILES}
    full = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert all(count <= MOST_FILES for count in full.values()), {
        f: n for f, n in full.items() if n > MOST_FILES
    }


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[1] in NEEDS_TORCH_ALONE])
def test_the_block_and_the_networks_need_torch_alone(module):
    foreign = (
        {name.split(".")[0] for name in IMPORTS[module]} - {"nlnet"} - TORCH_ONLY - sys.stdlib_module_names
    )
    assert not foreign


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_nlnet_does_no_work():
    assert "torch" not in modules_after("import nlnet")


def test_public_names_need_torch_alone():
    """All but `load`, which reads videos and draws figures."""
    loaded = modules_after("import nlnet; [getattr(nlnet, n) for n in nlnet.__all__ if n != 'load']")
    assert "torch" in loaded
    assert not loaded & {"av", "pydantic", "typer", "rich", "yaml", "safetensors", "matplotlib", "sklearn"}


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['nlnet', '--help']\ntry:\n  from nlnet.apps.cli.main import main; main()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "predict" in done.stdout


def test_unknown_public_name():
    import nlnet

    with pytest.raises(AttributeError, match="no attribute 'NonlocalBlock'.*NonLocalBlock"):
        _ = nlnet.NonlocalBlock
