"""Files, modules, links, commands, options and tests that the documents mention exist."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ccid.known.descriptor_figures import all_figures
from ccid.pcsc.plug import install
from ccid.pcsc.service import __main__ as pcscd
from ccid.pcsc.service import run_program
from ccid.probe.__main__ import parser as probe_parser
from ccid.virtual import __main__ as virtual_main
from tests.unit.test_layers import LAYERS
from tests.vm.differential.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "examples/*.md", ".github/**/*.md")
    for file in ROOT.glob(pattern)
)
OUTPUT = ("docs/clients.md",)
"""Documents whose code blocks are what programs of others printed."""
FOLDERS = ("ccid", "docs", "examples", "readers", "tests", "tools", ".ci", ".github")
"""Folders of ours: a path that begins with one is ours."""
ROOMS = sorted(
    path.stem
    for path in (ROOT / "ccid").iterdir()
    if (path.suffix == ".py" and not path.stem.startswith("__")) or (path / "__init__.py").is_file()
)
LOGGERS = ("ccid.traffic",)
"""Names of loggers, which look like modules."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def code_of(document: str) -> list[str]:
    """All that a document shows as code: between backticks, and in blocks."""
    text = text_of(document)
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M)
    return spans_of(document) if document in OUTPUT else spans_of(document) + blocks


def spans_of(document: str) -> list[str]:
    """What stands between backticks in a line."""
    rest = re.sub(r"^```\w*\n.*?^```$", "", text_of(document), flags=re.S | re.M)
    return re.findall(r"``?([^`\n]+)``?", rest)


# Tests ------------------------------------------------------------------------------------------

TEST = re.compile(r"`(tests/\w+/)?(test_\w+\.py)(?:::(test_\w+))?`")


def named_tests() -> list[tuple[str, str, str]]:
    """The tests that the documents name: folder, where it is said, file and function."""
    return sorted({named for document in DOCUMENTS for named in TEST.findall(text_of(document))})


@pytest.mark.parametrize(("folder", "file", "function"), named_tests())
def test_each_test_that_is_named_is_there(folder: str, file: str, function: str) -> None:
    found = list(ROOT.glob(f"{folder or 'tests/*/'}{file}"))
    assert any(f"def {function}(" in one.read_text("utf-8") or not function for one in found)


def test_there_are_some() -> None:
    assert len(named_tests()) > 15


def test_the_differences_are_those_of_the_scenarios() -> None:
    """Each tag of a scenario has its paragraph, each fault of libccid its line, and no other."""
    scenarios = SCENARIOS.values()
    text = text_of("docs/differences.md")
    wire, faults = text.split("## Replies that differ")
    told = set(re.findall(r"^### `([\w-]+)`$", wire, re.M))
    assert told == {tag for scenario in scenarios for tag in scenario.wire}
    lines = re.findall(r"^\| ([^|]+) \|", faults.split("\n## ")[0], re.M)[1:]
    for scenario in (one for one in scenarios if one.fault):
        assert [line for line in lines if scenario.name.startswith(line)], scenario.name
    assert len(lines) == sum(bool(one.fault) for one in scenarios)


def test_there_are_as_many_scenarios_as_the_readme_says() -> None:
    assert "More than ninety scenarios" in text_of("README.md")
    assert len(SCENARIOS) > 90


def test_there_are_as_many_models_as_the_readme_says() -> None:
    (count,) = re.findall(r"one of the more than (\d+) models", text_of("README.md"))
    assert len({(one.vendor_id, one.product_id) for one in all_figures()}) > int(count)


# Files and modules ------------------------------------------------------------------------------

PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*[\w/*]")
BARE = re.compile(r"(?<![\w./*-])(\w+\.(?:py|c|h))(?![\w/])")
MODULE = re.compile(r"(?<![\w./-])ccid\.[A-Za-z_][\w.]*\w")
IN_A_ROOM = re.compile(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})\.[a-z_][\w.]*\w")
"""A module or more without ``ccid.``: between backticks only, since programs have variables."""
PLACEHOLDER = re.compile(r"(?<![A-Za-z])(?:NAME|VVVV|FILE)(?![A-Za-z])|_command$")
FILE_ENDING = re.compile(r"\.(?:py|md|toml|json|txt|html|pcapng)$")


def paths_in(code: str, *patterns: re.Pattern[str]) -> set[str]:
    """The files of ours that ``code`` names."""
    found = {path for pattern in patterns or (PATH, BARE) for path in pattern.findall(code)}
    return {path for path in found if not PLACEHOLDER.search(path)}


def modules_in(code: str, *patterns: re.Pattern[str]) -> set[str]:
    """The modules of ours that ``code`` names, or what in them."""
    found = {name for pattern in patterns or (MODULE, IN_A_ROOM) for name in pattern.findall(code)}
    return {
        name
        for name in found
        if name not in LOGGERS and not FILE_ENDING.search(name) and not PLACEHOLDER.search(name)
    }


@cache
def all_files() -> frozenset[str]:
    """The names of all files that are ours, without their folders."""
    folders = (ROOT / folder for folder in FOLDERS)
    return frozenset(path.name for folder in folders for path in folder.rglob("*"))


def is_there(path: str) -> bool:
    if "/" not in path:
        return path in all_files() or (ROOT / path).is_file()
    return any(ROOT.glob(path.rstrip("/"))) if "*" in path else (ROOT / path).exists()


def resolves(name: str) -> bool:
    """True if ``name`` is a module, or something in one."""
    parts = name.removeprefix("ccid.").split(".")
    there: object = importlib.import_module("ccid")
    for i, part in enumerate(parts):
        try:
            there = importlib.import_module(".".join(["ccid", *parts[: i + 1]]))
        except ModuleNotFoundError:
            if not hasattr(there, part) and part not in getattr(there, "__annotations__", {}):
                return False
            there = getattr(there, part, None)
    return True


def moved() -> list[tuple[str, str]]:
    """CHANGELOG's table of modules that moved: old names and new ones."""
    return re.findall(r"^\| `(ccid[\w.]*)` \| `(ccid[\w.]*)` \|", text_of("CHANGELOG.md"), re.M)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_are_there(document: str) -> None:
    old = {name for name, _ in moved()} if document == "CHANGELOG.md" else set()
    kinds = (PATH,) if document in OUTPUT else (PATH, BARE)
    paths = {path for code in code_of(document) for path in paths_in(code, *kinds)}
    names = {name for code in code_of(document) for name in modules_in(code, MODULE)}
    names |= {name for code in spans_of(document) for name in modules_in(code)}
    assert [path for path in paths if not is_there(path)] == []
    assert [name for name in names - old if not resolves(name)] == []


def test_what_moved_is_where_the_changelog_says() -> None:
    assert len(moved()) > 5
    for old, new in moved():
        assert not resolves(old) or new.startswith(f"{old}."), old
        assert resolves(new), new


@pytest.mark.parametrize(
    ("code", "lost"),
    [
        ("see ccid/nothing.py", {"ccid/nothing.py"}),
        ("tools/nothing --check", {"tools/nothing"}),
        ("tests/unit/test_nothing*.py", {"tests/unit/test_nothing*.py"}),
        ("nothing.c", {"nothing.c"}),
        ("ccid.link.nothing", {"ccid.link.nothing"}),
        ("link.pipe.Nothing", {"link.pipe.Nothing"}),
        ("ccid.open_nothing()", {"ccid.open_nothing"}),
        ("plug.c, link.pipe.Pipe, ccid/link/pipe.py, tests/unit/test_t*.py", set()),
        ("readers/VVVV-vendor.toml, ccid/probe/NAME_command.py, /opt/ccid/bin/python", set()),
    ],
)
def test_what_is_not_there_is_seen(code: str, lost: set[str]) -> None:
    paths = {path for path in paths_in(code) if not is_there(path)}
    assert paths | {name for name in modules_in(code) if not resolves(name)} == lost


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_the_map_has_each_room_from_the_ground_up(document: str) -> None:
    rows = re.findall(r"^\| (`ccid/[^|]+) \|", text_of(document), re.M)
    rooms = [name for row in rows for name in re.findall(r"`ccid/(\w+)(?:/|\.py)`", row)]
    assert rooms == [room for room in LAYERS if room != "_version"]


# Links ------------------------------------------------------------------------------------------


def links(document: str) -> list[tuple[str, str]]:
    """The links of a document to files of ours: file, "" for itself, and anchor."""
    found = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text_of(document))
    return [(target, anchor) for target, anchor in found if target or anchor]


def anchors(file: Path) -> Iterator[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target, anchor in links(document):
        there = file.parent / target if target else file
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_each_document_is_reached_from_the_readme() -> None:
    reached, new = set[str](), {"README.md"}
    while new:
        document = new.pop()
        reached.add(document)
        folder = (ROOT / document).parent
        targets = {(folder / target).resolve() for target, _ in links(document) if target}
        names = {str(path.relative_to(ROOT.resolve())) for path in targets}
        new |= {name for name in names if name.endswith(".md")} - reached
    assert {name for name in DOCUMENTS if not name.startswith(".github/")} <= reached


# Commands and options ---------------------------------------------------------------------------


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def probe_commands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (
        action
        for action in probe_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(commands.choices)


COMMANDS = probe_commands()
PROGRAMS = {
    "ccid-install-driver": options_of(install._parser()),
    "ccid-pcscd": options_of(pcscd._parser()),
    "ccid-run": options_of(run_program._parser()),
    "ccid.virtual": options_of(virtual_main._parser()),
}
"""Programs other than ccid-probe, and their options."""
OWN = set().union(*PROGRAMS.values(), *map(options_of, [probe_parser(), *COMMANDS.values()]))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*\w")
NOT_COMMANDS = {"NAME", "COMMAND"}


def unknown_in(code: str) -> set[str]:
    """Commands and options in ``code`` that our programs do not have."""
    found = set()
    for line in code.splitlines():
        for part in re.split(r"&&|;|\||`|<", line):
            found |= unknown_in_command(part)
    return found


def unknown_in_command(part: str) -> set[str]:
    options = set(OPTION.findall(part))
    for program, known in PROGRAMS.items():
        if re.search(rf"(?<![\w.]){re.escape(program)}(?![\w.])", part):
            return options - known
    match = re.search(r"(?<![\w-])ccid-probe(?: +(\w[\w-]*))?", part)
    if match is None:
        words = part.split()
        return options - OWN - tool_options() if words and words[0].startswith("--") else set()
    command = match[1]
    if command is None or command in NOT_COMMANDS:
        return options - OWN
    if command not in COMMANDS:
        return {command}
    return options - options_of(COMMANDS[command]) - options_of(probe_parser())


@cache
def tool_options() -> frozenset[str]:
    """Options of the programs in tools/."""
    files = [file for file in (ROOT / "tools").iterdir() if file.is_file()]
    return frozenset(one for file in files for one in OPTION.findall(file.read_text("utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_are_there(document: str) -> None:
    assert {one for code in code_of(document) for one in unknown_in(code)} == set()


@pytest.mark.parametrize(
    ("code", "unknown"),
    [
        ("ccid-probe nothing", {"nothing"}),
        ("$ ccid-probe shell --json", {"--json"}),
        ("--nothing FILE", {"--nothing"}),
        ("python -m ccid.virtual --usbip 127.0.0.1 --nothing", {"--nothing"}),
        ("ccid-install-driver --nothing", {"--nothing"}),
        ("ccid-probe atr HEX | less --nothing", set()),
        ("ccid-probe check --virtual 08e6:3437 && ccid-probe", set()),
    ],
)
def test_an_unknown_command_or_option_is_seen(code: str, unknown: set[str]) -> None:
    assert unknown_in(code) == unknown


def test_the_declaration_that_is_shown_is_the_code() -> None:
    (shown,) = re.findall(r"```python\n(@message.*?)```", text_of("ARCHITECTURE.md"), re.S)
    source = text_of("ccid/codec/messages/commands.py")
    assert [line for line in shown.splitlines() if line not in source.splitlines()] == []
