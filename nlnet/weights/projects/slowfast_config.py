"""Read and write the YAML configuration in a PySlowFast file.

Only the form that `cfg.dump()` writes is read, line by line, without a YAML package.
"""

import re
from typing import Any

from torch import nn

from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

ARCHS = ("c2d", "c2d_nopool", "i3d", "i3d_nopool")
"""Values of MODEL.ARCH whose networks we have."""
PAIRWISE = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
"""NONLOCAL.INSTANTIATION → our pairwise function."""
POOL, NO_POOL = [1, 2, 2], [1, 1, 1]
"""Values of NONLOCAL.POOL for blocks that pool keys and blocks that do not."""


def slowfast_configuration(model: VideoResNet, *, is_2d: bool) -> str:
    """Write the configuration of what the keys of `model` do not show; with `is_2d`, that of a C2D."""
    arch = ("c2d" if is_2d else "i3d") + ("_nopool" if isinstance(model.pool2, nn.Identity) else "")
    text = f"MODEL:\n  ARCH: {arch}\n"
    blocks = nonlocal_blocks(model)
    for block in list(blocks.values())[:1]:  # all are of one kind (`nlnet.weights.export_limits`)
        kind = {ours: theirs for theirs, ours in PAIRWISE.items()}[block.pairwise]
        groups = [
            max((b.groups for path, b in blocks.items() if path.startswith(f"layer{stage}.")), default=1)
            for stage in (1, 2, 3, 4)
        ]
        pool = "".join(
            f"{lead}{size}\n"
            for lead, size in zip(
                ("  - - - ", "      - ", "      - "), POOL if block.subsample else NO_POOL, strict=True
            )
        )
        text += "NONLOCAL:\n  GROUP:\n" + "".join(f"  - - {n}\n" for n in groups)
        text += f"  INSTANTIATION: {kind}\n  POOL:\n{pool * 4}"
    return text


def config_value(text: str, section: str, key: str) -> str | None:
    """The value of `key` in a section, or the lines of the list below it; None if the key is absent.

    By lines rather than by a pattern over the whole text, which could backtrack exponentially.
    """
    inside = False
    found: list[str] = []
    for line in text.splitlines():
        if found and not line.lstrip().startswith("- "):
            break
        if not line.startswith((" ", "-")):
            inside = line == f"{section}:"
        elif found:
            found.append(line)
        elif inside and line.lstrip().startswith(f"{key}:"):
            found.append(line.partition(":")[2])
    if not found:
        return None
    return found[0].strip() if len(found) == 1 else "\n".join(found[1:])


def nested_list(value: str) -> list[Any]:
    """Parse a list of lists of integers in either of YAML's forms: `[[1, 2], [3]]`, or one item a line after dashes."""
    root: list[Any] = []
    open_lists: list[
        tuple[int, list[Any]]
    ] = []  # (column of its dashes, list), from the outermost to the innermost
    for line in value.splitlines():
        column = len(line) - len(line.lstrip())
        rest = line.lstrip()
        # each dash opens a list at its column, or goes on with the one that is open there
        while rest.startswith("- "):
            while open_lists and open_lists[-1][0] > column:
                open_lists.pop()
            if not open_lists or open_lists[-1][0] < column:
                parent = open_lists[-1][1] if open_lists else None
                opened: list[Any] = root if parent is None else []
                if parent is not None:
                    parent.append(opened)
                open_lists.append((column, opened))
            rest, column = rest[2:], column + 2
        if rest:
            _append(open_lists[-1][1] if open_lists else root, rest)
    return root if open_lists or not root else root[0]


def _append(items: list[Any], text: str) -> None:
    """Parse one line, an integer or a list in brackets, and append it."""
    inner = [items]
    for token in re.findall(r"\[|\]|\d+", text):
        if token == "[":
            inner[-1].append([])
            inner.append(inner[-1][-1])
        elif token == "]":
            inner = inner[:-1] or [items]  # a bracket too many closes nothing
        else:
            inner[-1].append(int(token))
