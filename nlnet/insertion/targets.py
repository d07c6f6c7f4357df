"""Which modules a new child can follow: modules by path, glob or rule, and the reasons why one cannot be a host."""

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nlnet.errors import InsertionError

NAME = "nonlocal_block"
"""The child's name. Not `nonlocal`: torch.export writes module paths as Python code, where that is a keyword."""

Where = str | Sequence[str] | Mapping[str, str | Sequence[int]]


def find_hosts(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """The modules that `where` names (see `insert_nonlocal`), in the model's order.

    Raises:
        InsertionError: nothing matches, something matches twice, or a rule or index makes no sense.
    """
    modules = model.named_modules(remove_duplicate=False)
    known = {path: module for path, module in modules if path and NAME not in path.split(".")}
    chosen: list[str] = []
    if isinstance(where, Mapping):
        for pattern, rule in where.items():
            for stage in _matches(known, pattern):
                children = [
                    name for name, child in known[stage].named_children() if f"{stage}.{name}" in known
                ]
                chosen += [f"{stage}.{children[i]}" for i in _indices(stage, rule, len(children))]
    else:
        for pattern in [where] if isinstance(where, str) else where:
            chosen += _matches(known, pattern)
    if not chosen:
        raise InsertionError(f"where: got {where!r}, which names no module")
    seen: dict[int, str] = {}
    for path in chosen:
        if id(known[path]) in seen:
            first = seen[id(known[path])]
            same = "named twice" if first == path else f"the same module as {first!r}"
            raise InsertionError(f"where: {path!r} is {same}; expected every module once")
        seen[id(known[path])] = path
    return {path: module for path, module in known.items() if path in chosen}


def _matches(known: Mapping[str, nn.Module], pattern: str) -> list[str]:
    """Paths that a pattern matches part by part: `*` does not cross a dot."""
    parts = pattern.split(".")
    found = [
        path
        for path in known
        if len(names := path.split(".")) == len(parts) and all(map(fnmatchcase, names, parts))
    ]
    if not found:
        parent = pattern.rpartition(".")[0]
        while parent and parent not in known:
            parent = parent.rpartition(".")[0]
        level = parent.count(".") + 2 if parent else 1
        start = f"{parent}." if parent else ""
        children = [path for path in known if path.startswith(start) and path.count(".") + 1 == level]
        near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.6)
        raise InsertionError(
            f"where: {pattern!r} matches no module"
            + (f"; near: {', '.join(near)}" if near else "")
            + (f"; children of {parent!r}: " if parent else "; modules at the top: ")
            + (", ".join(children[:12]) or "none")
            + (", …" if len(children) > 12 else "")
        )
    return found


def _indices(stage: str, rule: str | Sequence[int], count: int) -> list[int]:
    """Which of a stage's `count` children a rule means."""
    if not isinstance(rule, str):
        outside = [i for i in rule if not 0 <= i < count]
        if outside:
            raise InsertionError(f"where: {stage!r} has children 0 … {count - 1}, got indices {outside}")
        return list(rule)
    every = re.fullmatch(r"every (\d+)(?:st|nd|rd|th)", rule)
    if rule == "all":
        found = list(range(count))
    elif rule == "last":
        found = [count - 1] if count > 0 else []
    elif rule == "before last":
        found = [count - 2] if count > 1 else []
    elif every and int(every[1]) > 0:
        found = list(range(int(every[1]) - 1, count, int(every[1])))
    else:
        rules = "'all', 'last', 'before last', 'every 2nd' (3rd, 4th, …) or a list of indices"
        raise InsertionError(f"where: got the rule {rule!r} for {stage!r}, expected {rules}")
    if not found:
        raise InsertionError(f"where: {stage!r} has {count} children, too few for the rule {rule!r}")
    return found


def is_chain(host: nn.Module) -> bool:
    """Whether the host runs its children one after the other and nothing else."""
    return isinstance(host, nn.Sequential) and type(host).forward is nn.Sequential.forward


def check_host(path: str, host: nn.Module, name: str) -> None:
    kind = type(host).__name__
    if name in host._modules:
        raise InsertionError(f"{path!r} has a child {name!r} already: a block goes in once")
    if is_chain(host):
        return
    # the stub that nn.Module and so ModuleList and ModuleDict have
    if type(host).forward is nn.Module.forward:
        raise InsertionError(
            f"{path!r} is a {kind} without a forward of its own: name its children, '{path}.*'"
        )
    names = getattr(getattr(type(host).forward, "__code__", None), "co_names", ())
    walks = {"children", "named_children", "modules", "named_modules", "_modules"} & set(names)
    if isinstance(host, nn.Sequential | nn.ModuleList | nn.ModuleDict) or walks:
        raise InsertionError(
            f"{path!r} is a {kind} whose own forward runs its children: another child would run with them; "
            f"name its last child or a module around it"
        )
