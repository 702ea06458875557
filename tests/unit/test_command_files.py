"""The manual pages and completions in packaging/share name every command and option, and a shell
completes with them."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ccid.pcsc.plug import install
from ccid.pcsc.service import __main__ as pcscd
from ccid.pcsc.service import run_program
from ccid.probe.__main__ import parser as probe_parser

SHARE = Path(__file__).parents[2] / "packaging" / "share"
PARSERS = {
    "ccid-probe": probe_parser,
    "ccid-pcscd": pcscd._parser,
    "ccid-run": run_program._parser,
    "ccid-install-driver": install._parser,
}
PLACES = (
    "man/man1/{}.1",
    "bash-completion/completions/{}",
    "zsh/site-functions/_{}",
    "fish/vendor_completions.d/{}.fish",
)


def names(parser: argparse.ArgumentParser) -> set[str]:
    """All long options and commands."""
    found = set()
    for action in parser._actions:
        found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for command, sub in action.choices.items():
                found |= {command} | names(sub)
    return found


@pytest.mark.parametrize("command", PARSERS)
@pytest.mark.parametrize("place", PLACES)
def test_each_option_and_command_is_in(command: str, place: str) -> None:
    """`tools/command-files` makes these files; this holds them against the parsers under every
    Python."""
    text = (SHARE / place.format(command)).read_text("utf-8").replace("\\-", "-")
    text = re.sub(r"\\f[BIR]", "", text)  # the fonts of a manual page
    wanted = names(PARSERS[command]()) - ({"--help"} if "man" in place else set())
    for name in sorted(wanted):
        told = rf"-l {name[2:]}" if "fish" in place and name.startswith("--") else name
        is_there = re.search(rf"(?<![\w-]){re.escape(told)}(?![\w-])", text)
        assert is_there, f"{name}: run tools/command-files"


def test_there_is_no_other_file() -> None:
    there = {str(file.relative_to(SHARE)) for file in SHARE.rglob("*") if file.is_file()}
    assert there == {place.format(command) for place in PLACES for command in PARSERS}


COMPLETE = """\
source {file}
COMP_WORDS=(ccid-probe {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_ccid_probe
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("do", "doctor"), ("bench --comp", "--compare"), ("--vir", "--virtual")],
)
def test_bash_completes(words: str, wanted: str) -> None:
    bash = shutil.which("bash")
    assert bash is not None, "bash is needed: it runs the tools, too"
    script = COMPLETE.format(file=SHARE / "bash-completion/completions/ccid-probe", words=words)
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True)
    assert wanted in done.stdout.split(), done.stderr
