"""The floors of the house hold: a module imports from lower floors or its own folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "nlnet"
FLOORS = {
    "precision": 0,
    "products": 0,
    "ops": 1,
    "norms": 1,
    "axes": 1,
    "places": 1,
    "pointwise": 1,
    "geometry": 2,
    "hosts": 2,
    "summary": 2,
    "block": 2,
    "surgery": 3,
    "attention": 3,
    "vitals": 3,
    "models": 4,
    "data": 4,
    "engine": 5,
    "apps": 6,
    "__main__": 7,
}
TORCH_ONLY = {"torch", "jaxtyping"}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of every module that the file imports, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    mine = room(path)
    for name in imported(path):
        if name.split(".")[0] != "nlnet":
            continue
        assert name != "nlnet", f"{path} imports the package's front door; name the module"
        other = name.split(".")[1]
        assert other == mine or FLOORS[other] < FLOORS[mine], f"{path} on floor {FLOORS[mine]} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if FLOORS[room(p)] <= 4 and room(p) != "data"], ids=str)
def test_the_block_and_the_networks_need_torch_alone(path):
    foreign = (
        {name.split(".")[0] for name in imported(path)} - {"nlnet"} - TORCH_ONLY - sys.stdlib_module_names
    )
    assert not foreign


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_nlnet_does_no_work():
    assert "torch" not in modules_after("import nlnet")


def test_public_names_need_torch_alone():
    loaded = modules_after("import nlnet; [getattr(nlnet, n) for n in nlnet.__all__]")
    assert "torch" in loaded
    assert not loaded & {"av", "pydantic", "typer", "rich", "yaml", "safetensors", "matplotlib", "sklearn"}


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['nlnet', '--help']\ntry:\n  from nlnet.apps.cli import main; main()\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "predict" in done.stdout


def test_unknown_public_name():
    import nlnet

    with pytest.raises(AttributeError, match="no attribute 'NonlocalBlock'.*NonLocalBlock"):
        _ = nlnet.NonlocalBlock
