"""Arrows point down only: no module imports one of a layer above its own (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ccid

FOLDER = Path(ccid.__file__).parent
LAYERS: dict[str, tuple[str, ...]] = {
    "ground": ("errors", "codes", "text", "hexadecimal", "once", "ending", "_version"),
    "codec": ("declaration", "messages", "descriptors"),
    "engine": ("iso7816",),
    "table": ("quirks", "card_quirks", "catalog", "figures", "extended"),
    "transport": ("transport",),
    "PIN": ("pin", "pin_texts"),
    "link": (
        *("conversation", "pipe", "shared_pipe", "inbox", "commands", "iccd", "rates"),
        *("card_state", "cards", "replies", "reply_errors"),
    ),
    "session": ("activation", "negotiation", "exchange"),
    "trace": ("trace",),
    "virtual": ("virtual",),
    "device": (
        *("reader", "slot", "card", "opened", "unclosed", "composite", "find", "watching"),
        *("verdict", "control"),
    ),
    "PC/SC": ("ifd", "pcscd"),
    "command": ("probe",),
}
"""From the ground up. Modules and packages are named by what comes after ``ccid.``."""
EXCEPT = {"transport.virtual": "virtual"}
"""Modules that stand in another layer than their package."""
NUMBER = {layer: number for number, layer in enumerate(LAYERS)}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}


def layer_of(module: str) -> str:
    """The layer of a module, named by what comes after ``ccid.``."""
    return EXCEPT.get(module) or LAYER_OF[module.split(".")[0]]


def modules() -> dict[str, Path]:
    """All modules but ``ccid`` itself, which names what is public and imports it when asked."""
    found = {}
    for file in FOLDER.rglob("*.py"):
        parts = file.relative_to(FOLDER).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = file
    return found


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports of this project, wherever; not what only types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def targets(file: Path) -> Iterator[str]:
    for name in imported(ast.parse(file.read_text("utf-8"))):
        if not name.startswith("ccid."):
            continue
        target = name.removeprefix("ccid.")
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        if target:
            yield target


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(LAYER_OF)


def test_arrows_point_down() -> None:
    upwards = [
        f"{name} ({layer_of(name)}) imports {target} ({layer_of(target)})"
        for name, file in MODULES.items()
        for target in targets(file)
        if NUMBER[layer_of(target)] > NUMBER[layer_of(name)]
    ]
    assert upwards == []


def test_an_arrow_that_points_up_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from ccid.reader import Reader\n")
    (target,) = targets(file)
    assert NUMBER[layer_of(target)] > NUMBER["codec"]
