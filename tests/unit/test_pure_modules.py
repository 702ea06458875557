"""The modules that ARCHITECTURE.md calls pure are pure, and those at the edge are all named.

An edge module imports threads, locks, queues, sockets, clocks, processes or USB. A pure module
imports none of them, and no module that does. It opens no file and asks the system for nothing, and
imports no module that does: modules that do so, and no more, have a list of their own. Looking a
reader up in the table does not count. All other modules are handed something of the edge, and work
with that.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_layers import LAYERS, MODULES, imported, parsed, room, targets

ROOT = Path(__file__).parents[2]
EDGE = frozenset(
    {
        *("_thread", "asyncio", "concurrent", "multiprocessing", "queue", "sched", "threading"),
        *("select", "selectors", "socket", "socketserver", "ssl"),
        *("atexit", "datetime", "signal", "subprocess", "time"),
        *("ctypes", "usb"),
        *("ccid.ground.mailbox", "ccid.ground.signal_safe_locks"),
    }
)
"""What only the edge imports."""
SYSTEM = frozenset(
    {
        *("fcntl", "getpass", "glob", "mmap", "os", "pathlib", "platform", "pwd", "secrets"),
        *("importlib.metadata", "importlib.resources", "shutil", "stat", "tempfile"),
    }
)
"""What asks the system or its files for something."""
LOOK_UP = "known.quirks.reader_table"
"""The module that reads the table of readers."""
HARMLESS = frozenset({"fspath", "PathLike"})
"""What ``os`` has that asks for nothing."""
KINDS = ("Pure", "System", "Edge")


def is_one_of(name: str, kinds: frozenset[str]) -> bool:
    """True if ``name``, a module or what is in one, is of one of these modules."""
    parts = name.split(".")
    return any(".".join(parts[:i]) in kinds for i in range(1, len(parts) + 1))


def uses_only_harmless(tree: ast.AST) -> bool:
    """All that the module uses of ``os`` asks for nothing."""
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    return used <= HARMLESS


def opens_files(tree: ast.AST) -> bool:
    """The module calls ``open``."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        for node in ast.walk(tree)
    )


@cache
def asks(file: Path) -> frozenset[str]:
    """Which of EDGE and SYSTEM a file uses: ``edge``, ``system``."""
    tree = parsed(file)
    names = set(imported(tree, types=False))
    if uses_only_harmless(tree):
        names.discard("os")
    found = set()
    if any(is_one_of(name, EDGE) for name in names):
        found.add("edge")
    if any(is_one_of(name, SYSTEM) for name in names) or opens_files(tree):
        found.add("system")
    return frozenset(found)


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of this project that ``module`` imports when it runs, or when a name is used."""
    return frozenset(targets(MODULES[module], types=False)) | by_name(MODULES[module])


def by_name(file: Path) -> frozenset[str]:
    """The modules that a package names for ``import_module``, to import them when they are used."""
    text = file.read_text("utf-8")
    if "import_module(" not in text:
        return frozenset()
    return frozenset(re.findall(r'"ccid\.([\w.]+)"', text)) & MODULES.keys()


def reached(module: str) -> set[str]:
    """``module``, and all of this project that it imports, whether at once or later."""
    found: set[str] = set()
    rest = [module]
    while rest:
        new = rest.pop()
        if new not in found:
            found.add(new)
            rest.extend(imports(new))
    return found


@cache
def kind(module: str) -> str | None:
    """Pure, System or Edge; None for a module that works with what the edge gives it."""
    if "edge" in asks(MODULES[module]):
        return "Edge"
    others = {one: asks(MODULES[one]) for one in reached(module)}
    if any("edge" in asked for asked in others.values()):
        return None
    system = {one for one, asked in others.items() if "system" in asked}
    return "System" if module in system or system - {LOOK_UP} else "Pure"


def has_code(module: str) -> bool:
    """It defines something: most ``__init__.py`` only say what is in their folder."""
    body = parsed(MODULES[module]).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign) for node in body)


@cache
def code() -> list[str]:
    return [name for name in MODULES if name != "_version" and has_code(name)]


def rows() -> list[tuple[str, dict[str, set[str]]]]:
    """ARCHITECTURE.md's table: of each room, the bare names of its modules by kind."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    head = "| Room | Pure | Asks the system only | Edge |"
    (table,) = re.findall(rf"^{re.escape(head)}\n.*\n((?:\|.*\n)+)", text, re.M)
    found = []
    for line in table.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split(" |"))
        sets = [set(re.findall(r"`(\w+)`", cell)) for cell in cells]
        for cell, names in zip(cells, sets, strict=True):
            if cell.strip().startswith("all"):
                names |= {bare(one) for one in code() if room(one) == name.strip("` ")}
        found.append((name.strip("` "), dict(zip(KINDS, sets, strict=True))))
    return found


def bare(module: str) -> str:
    return module.rpartition(".")[2]


TABLE = rows()


@pytest.mark.parametrize(("name", "told"), TABLE, ids=[name for name, _ in TABLE])
def test_the_table_is_right(name: str, told: dict[str, set[str]]) -> None:
    there = {
        which: {bare(one) for one in code() if room(one) == name and kind(one) == which}
        for which in KINDS
    }
    assert told == there


def test_the_table_has_each_room() -> None:
    assert [name for name, _ in TABLE] == [name for name in LAYERS if name != "_version"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import threading", {"edge"}),
        ("def f():\n    from time import monotonic", {"edge"}),
        ("import usb.core", {"edge"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import threading", set()),
        ("import os\nos.environ", {"system"}),
        ("import os\nos.fspath('x')", set()),
        ("from importlib.resources import files", {"system"}),
        ("def f():\n    return open('x')", {"system"}),
        ("import importlib, re, struct", set()),
    ],
)
def test_what_a_module_asks_for_is_seen(source: str, found: set[str], tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(source)
    assert asks(file) == found


def test_an_import_of_an_edge_module_is_seen() -> None:
    assert "link.conversation" in reached("session.exchange.one_block")
    assert kind("session.exchange.one_block") is None
    assert kind("link.card_state") == "Pure"
