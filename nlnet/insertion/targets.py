"""Targets of an insertion: the modules named by path, glob or rule, and the checks that a block can follow them."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nlnet.errors import InsertionError, did_you_mean, listed

CHILD_NAME = "nonlocal_block"
"""The name of an inserted block in its target. Not `nonlocal`: torch.export writes module paths as Python code, where
that is a keyword."""
RULES = "'all', 'last', 'before last', 'every 2nd' (3rd, 4th, …) or a list of indices"

Where = str | Sequence[str] | Mapping[str, str | Sequence[int]]


def find_targets(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """Return the modules that `where` names (see `insert_nonlocal`) by path, in the model's order.

    Raises:
        InsertionError: nothing matches, a module is named twice, or a rule or index does not fit.
    """
    # Shared modules appear under each of their paths, so that every path of the model can be named. Blocks that were
    # inserted earlier, and what is in them, are no targets.
    modules = model.named_modules(remove_duplicate=False)
    known = {path: module for path, module in modules if path and CHILD_NAME not in path.split(".")}
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
        raise InsertionError(
            f"where: got {where!r}, which names no module; expected at least one path, glob or rule"
        )
    first_path: dict[int, str] = {}
    for path in chosen:
        if id(known[path]) in first_path:
            first = first_path[id(known[path])]
            same = "is named twice" if first == path else f"is the same module as {first!r}"
            raise InsertionError(f"where: {path!r} {same}; expected every module once: leave one of them out")
        first_path[id(known[path])] = path
    return {path: module for path, module in known.items() if path in chosen}


def _matches(known: Mapping[str, nn.Module], pattern: str) -> list[str]:
    """The paths that a pattern matches, compared part by part: `*` does not match a dot."""
    parts = pattern.split(".")
    found = [
        path
        for path in known
        if len(names := path.split(".")) == len(parts) and all(map(fnmatchcase, names, parts))
    ]
    if found:
        return found
    # to help with the name, list the children of the longest part of the path that exists
    parent = pattern.rpartition(".")[0]
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    start, level = (f"{parent}.", parent.count(".") + 1) if parent else ("", 0)
    children = [path for path in known if path.startswith(start) and path.count(".") == level]
    raise InsertionError(
        f"where: {pattern!r} matches no module; {repr(parent) if parent else 'the model'} has "
        f"{'the children ' + listed(children, 12) if children else 'no children'}{did_you_mean(pattern, known)}"
    )


def _indices(stage: str, rule: str | Sequence[int], count: int) -> list[int]:
    """The indices of a stage's children that a rule selects; `count` is the number of children."""
    if not isinstance(rule, str):
        outside = [i for i in rule if not 0 <= i < count]
        if outside:
            expected = f"0 to {count - 1}" if count else "none, for it has no children"
            raise InsertionError(f"where: got the indices {outside} for {stage!r}, expected {expected}")
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
        raise InsertionError(f"where: got the rule {rule!r} for {stage!r}, expected {RULES}")
    if not found:
        raise InsertionError(
            f"where: {stage!r} has {count} children, too few for the rule {rule!r}; name a module by its path instead"
        )
    return found


def is_plain_sequential(module: nn.Module) -> bool:
    """Whether a module runs its children one after the other and nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def check_target(path: str, module: nn.Module, name: str) -> None:
    """Check that the module at `path` can get a child `name` that is applied to its output.

    Raises:
        InsertionError: it has such a child, has no forward, or has a forward that would run the new child as well.
    """
    kind = type(module).__name__
    if name in module._modules:
        raise InsertionError(
            f"{path!r} has a child {name!r} already, expected none: leave this module out of `where`"
        )
    if is_plain_sequential(module):
        return
    # nn.Module defines a forward that only raises an error; ModuleList and ModuleDict inherit it
    if type(module).forward is nn.Module.forward:
        raise InsertionError(
            f"{path!r} is a {kind}, which has no forward of its own; name its children instead, as '{path}.*'"
        )
    # A forward that loops over its children would run the new one in the loop and the hook would run it again. Such a
    # loop reads one of these names, or, in a container, iterates over the module itself.
    names = getattr(getattr(type(module).forward, "__code__", None), "co_names", ())
    loops = {"children", "named_children", "modules", "named_modules", "_modules"} & set(names)
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) or loops:
        raise InsertionError(
            f"{path!r} is a {kind} whose own forward loops over its children and would run the block as one of them: "
            f"name its last child, or the module that contains it, instead"
        )
