"""Make docs/api.md from the docstrings of the public names: python docs/make_api.py

The page has a section for each name of `nlnet.__all__` and for each class that these return, with the signature, the
docstring, and the documented attributes, properties and methods.
"""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import nlnet
from nlnet.block_options import DEFAULTS as BLOCK_DEFAULTS
from nlnet.block_options import BlockOptions
from nlnet.models.options import DEFAULTS as NETWORK_DEFAULTS
from nlnet.models.options import NetworkOptions

PAGE = Path(__file__).with_name("api.md")
RETURNED = {
    "choose_algorithm": ("nlnet.ops.algorithms.Choice",),
    "insert_nonlocal": ("nlnet.insertion.summary.Summary",),
    "observe": ("nlnet.attention.observe.Observation",),
    "create_model": ("nlnet.models.resnet.VideoResNet",),
    "read_weights": ("nlnet.weights.read.Weights",),
    "read_block": ("nlnet.weights.blocks.BlockWeights",),
    "load": (
        "nlnet.apps.notebook.TrainedRun",
        "nlnet.apps.verbs.predict.Prediction",
        "nlnet.apps.notebook.Attention",
    ),
}
"""The classes of what a name returns; each gets a section after that name."""
HEADINGS = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises", "Warns": "Warns"}
LINKS = {
    "`nlnet.block_options.BlockOptions`": "[`BlockOptions`](#options-of-a-block)",
    "`nlnet.models.options.NetworkOptions`": "[`NetworkOptions`](#options-of-a-network)",
}
PREFACE = """# API reference

Every public name of `nlnet`. Made from the docstrings by `python docs/make_api.py`; `help(nlnet.NAME)` shows the same.
Letters of shapes: B batch, C channels, N query positions, M key positions, D channels compared, d inner channels, T frames,
H rows, W columns, V views, K classes. `"B C *grid"` is a map with one to three axes after B and C.
"""


def page() -> str:
    """The whole document."""
    parts = [PREFACE]
    for title, names in groups(inspect.getdoc(nlnet) or ""):
        parts.append(f"## {title}\n")
        parts.append(
            "| name | |\n|---|---|\n" + "\n".join(f"| {link(n)} | {gist} |" for n, gist in names) + "\n"
        )
        for name, _ in names:
            parts += [
                section(name, getattr(nlnet, name)),
                *(returned(path) for path in RETURNED.get(name, ())),
            ]
    parts.append(options("Options of a block", BlockOptions, dict(BLOCK_DEFAULTS)))
    backbone = {"norm": "The norm of the backbone, a kind of `nlnet.layers.norms.create_norm`."}
    parts.append(options("Options of a network", NetworkOptions, NETWORK_DEFAULTS, backbone))
    text = "\n".join(parts)
    for words, target in LINKS.items():
        text = text.replace(words, target)
    return text


def groups(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The lists of names in the docstring of the package: [("Blocks", [("NonLocalBlock", "the non-local block …"), …])]."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][\w ]*:", line):
            found.append((line[:-1], []))
        elif (entry := re.fullmatch(r" {4}(\w+) {2,}(\S.*)", line)) and found:
            found[-1][1].append((entry[1], entry[2]))
    return found


def link(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def returned(path: str) -> str:
    """The section of a class that a public name returns."""
    module, _, name = path.rpartition(".")
    return section(name, getattr(importlib.import_module(module), name))


def section(name: str, thing: Any) -> str:
    """A name's heading, signature and docstring; of a class its members, too."""
    if isinstance(thing, str):
        return f"### {name}\n\n`{thing!r}`\n"
    parts = [f"### {name}\n", f"`from {thing.__module__} import {name}`\n"]
    if hasattr(nlnet, name):
        parts[1] = f"`nlnet.{name}`, defined in `{thing.__module__}`\n"
    is_error = isinstance(thing, type) and issubclass(thing, Exception)
    if not is_error and (name in nlnet.__all__ or not isinstance(thing, type)):
        parts.append(signature(name, thing))
    parts.append(prose(inspect.getdoc(thing) or ""))
    if isinstance(thing, type) and not is_error:
        parts += members(thing)
    return "\n".join(parts)


def members(cls: type) -> list[str]:
    """The public attributes, properties and methods of a class, in the order of its source."""
    texts, lines, methods = attributes(cls), [], []
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if not name.startswith("_"):
            lines.append(attribute(name, annotation, texts.get(name, "")))
    for name, member in vars(cls).items():
        text = inspect.cleandoc(member.__doc__ or "") if not name.startswith("_") else ""
        if isinstance(member, property):
            result = inspect.signature(member.fget).return_annotation if member.fget else Any
            lines += [attribute(name, result, text)] * bool(text)
        elif inspect.isfunction(member) and text:
            methods.append(f"#### {cls.__name__}.{name}\n\n{signature(name, member)}\n{prose(text)}")
    return ["**Attributes**\n\n" + "\n".join(lines) + "\n"] * bool(lines) + methods


def attribute(name: str, annotation: Any, text: str) -> str:
    """An entry of a list: the name, the type and the docstring in one line."""
    return f"- `{name}` (`{short(inspect.formatannotation(annotation))}`){': ' * bool(text)}{flowed(text)}"


def attributes(cls: type) -> dict[str, str]:
    """The docstring below each annotated name in the body of a class."""
    found: dict[str, str] = {}
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    for before, line in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)):
            continue
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            found[before.target.id] = inspect.cleandoc(str(line.value.value))
    return found


def signature(name: str, thing: Any) -> str:
    """The call in a code block, one argument a line if it is long."""
    written = inspect.signature(thing)
    parameters, marked = [], False
    for parameter in written.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not marked:
            parameters.append("*")
            marked = True
        parameters.append(short(str(parameter)))
    result = written.return_annotation
    shows = result is not inspect.Signature.empty and not isinstance(thing, type)
    arrow = f" -> {short(inspect.formatannotation(result))}" if shows else ""
    one_line = f"{name}({', '.join(parameters)}){arrow}"
    if len(one_line) > 100:
        one_line = f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){arrow}"
    return f"```python\n{one_line}\n```\n"


def short(annotation: str) -> str:
    """A type without modules (`pathlib.Path` is `Path`) but for torch's own, and with double quotes."""
    text = re.sub(r"\b(?!torch\.d)(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", annotation)
    text = re.sub(r"^'(\w+)'$", r"\1", text)  # the name of a class that is defined below
    return text.replace("'", '"')


def prose(text: str) -> str:
    """A docstring as Markdown: sections become bold words with lists, aligned columns a code block."""
    blocks = []
    for block in paragraphs(text):
        heading, _, rest = block.partition("\n")
        title = HEADINGS.get(heading.rstrip(":")) if heading.endswith(":") else None
        if title is not None:
            blocks.append(f"**{title}**\n\n{items(textwrap.dedent(rest))}")
        elif block.startswith("    "):
            code = textwrap.dedent(block)
            blocks.append(f"```{'python' if is_python(code) else 'text'}\n{code}\n```")
        elif re.search(r"^\w+ {2,}\S", block, re.MULTILINE):
            blocks.append(f"```text\n{block}\n```")
        else:
            blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def paragraphs(text: str) -> list[str]:
    """The parts of a docstring between blank lines; an example may have blank lines inside."""
    parts: list[str] = []
    for part in re.split(r"\n[ ]*\n", text):
        code = parts and all(
            p.startswith("    ") and is_python(textwrap.dedent(p)) for p in (parts[-1], part)
        )
        if code:
            parts[-1] += f"\n\n{part}"
        else:
            parts.append(part)
    return parts


def is_python(text: str) -> bool:
    """Whether an indented block is an example, else a formula or a table."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def items(text: str) -> str:
    """Lines `name: text` with indented continuations as a list; other text as it is."""
    lines: list[str] = []
    for line in text.splitlines():
        entry = re.fullmatch(r"(\w+(?:, \w+)*): (.*)", line)
        if entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif lines and line.startswith("    "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def flowed(text: str) -> str:
    """A docstring in one line."""
    return " ".join(text.split())


def options(title: str, kind: type, defaults: dict[str, Any], other: dict[str, str] | None = None) -> str:
    """A table of keyword options with their types, defaults and meaning (`other` replaces that of the docstrings)."""
    said = {**attributes(BlockOptions), **attributes(kind), **(other or {})}
    rows = [
        f"| `{name}` | `{short(inspect.formatannotation(kind.__annotations__[name]))}` | `{default!r}` | "
        f"{flowed(said[name])} |".replace(" | None`", " \\| None`")
        for name, default in defaults.items()
    ]
    first = flowed(inspect.getdoc(kind) or "")
    return (
        f"## {title}\n\n{first}\n\n| option | type | default | |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE}")
