"""Imports point down only: no module imports a module of a layer above its own
(ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ccid

FOLDER = Path(ccid.__file__).parent
LAYERS = (
    *("_version", "ground", "errors", "codes"),
    *("codec", "iso7816", "known", "transport", "pin", "link", "masking", "session", "trace"),
    *("virtual", "device", "aio", "pcsc", "probe"),
)
"""The rooms, from the ground up: the first name after ``ccid.``. ARCHITECTURE.md draws the
rooms."""
NUMBER = {room: number for number, room in enumerate(LAYERS)}


def modules() -> dict[str, Path]:
    """All modules except ``ccid`` itself, which exports the public names and imports them on
    request."""
    found = {}
    for file in FOLDER.rglob("*.py"):
        parts = file.relative_to(FOLDER).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = file
    return found


MODULES = modules()
ALIKE: list[str] = []
"""Bare names that two modules share."""


def imported(tree: ast.AST, types: bool) -> Iterator[str]:
    """All names that a module imports anywhere. ``types``: with the names that only type checkers
    need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):  # imports are statements
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node, types)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


@cache
def targets(file: Path, types: bool = True) -> frozenset[str]:
    """The modules of this project that ``file`` imports."""
    found = set()
    for name in imported(parsed(file), types):
        if not name.startswith("ccid."):
            continue
        target = name.removeprefix("ccid.")
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        if target:
            found.add(target)
    return frozenset(found)


def room(module: str) -> str:
    return module.split(".")[0]


def package(module: str) -> str:
    """The folder of a module."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def rings(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of names that all reach each other."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        rest = [start]
        while rest:
            new = arrows.get(rest.pop(), set()) - found
            found |= new
            rest.extend(new)
        return found

    reach = {name: reached(name) for name in arrows}
    groups: list[set[str]] = []
    for name in arrows:
        ring = {other for other in reach[name] if name in reach.get(other, ())}
        if ring and ring not in groups:
            groups.append(ring)
    return groups


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in MODULES} == set(LAYERS)


def test_arrows_point_down() -> None:
    upwards = [
        f"{name} imports {target}"
        for name, file in MODULES.items()
        for target in targets(file)
        if NUMBER[room(target)] > NUMBER[room(name)]
    ]
    assert upwards == []


def test_no_ring_of_packages() -> None:
    """Rings of folders, at any depth. Imports for type checkers count."""
    arrows: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        folder = package(name)
        others = {package(target) for target in targets(file)}
        arrows.setdefault(folder, set()).update(others - {folder})
    assert rings(arrows) == []


def test_no_ring_of_modules() -> None:
    """Rings of modules at run time, whether they import at once or on request."""
    arrows = {
        name: {target for target in targets(file, types=False) if target != name}
        for name, file in MODULES.items()
    }
    assert rings(arrows) == []


def test_a_ring_is_seen() -> None:
    assert rings({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [{"b", "c"}]


def test_an_arrow_that_points_up_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from ccid.device.reader import Reader\n")
    (target,) = targets(file)
    assert NUMBER[room(target)] > NUMBER["codec"]


def test_no_two_modules_of_one_name() -> None:
    """A bare name identifies one module."""
    names = [name.rpartition(".")[2] for name in MODULES if not name.endswith("__main__")]
    assert sorted({name for name in names if names.count(name) > 1}) == ALIKE
