"""``python -m ccid.pcsc.under_pyscard``: runs a Python program that uses pyscard, without pcscd.

    python -m ccid.pcsc.under_pyscard --virtual 08e6:3437 -- program.py
    python -m ccid.pcsc.under_pyscard -m pytest
    python -m ccid.pcsc.under_pyscard $(command -v ykman) list

It runs in this process and by this Python. Programs that it starts have pcscd as before.
"""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ccid.pcsc
from ccid.errors import CcidError
from ccid.pcsc.service import virtual_options

USAGE = "python -m ccid.pcsc.under_pyscard [options] {-- PROGRAM | -m MODULE} [ARGUMENT ...]"
NOT_FOUND = 127
"""Exit status as a shell has it."""


class _Module(ModuleType):
    """Whoever imports this module finds the function of its name all the same."""

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """:func:`ccid.pcsc.under_pyscard`."""
        _function(*arguments, **named)


_function = ccid.pcsc.under_pyscard
sys.modules[__name__].__class__ = _Module


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccid.pcsc.under_pyscard",
        usage=USAGE,
        description="Runs a Python program that uses pyscard: its cards are this library's, and no "
        "pcscd is needed.",
    )
    virtual_options.add_arguments(parser)
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module")
    parser.add_argument("program", metavar="PROGRAM", nargs=argparse.REMAINDER)
    return parser


def _path(word: str) -> str | None:
    """The file of a program: a path, or a name in PATH."""
    return word if Path(word).is_file() else shutil.which(word)


def _run(words: Sequence[str], is_module: bool) -> int:
    """Run it as if Python had been started with it; returns the exit status if it does not end
    the process."""
    name = words[0]
    if is_module:
        sys.argv = list(words)
        sys.path[0] = str(Path.cwd())
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return 0
    path = _path(name)
    if path is None:
        print(f"under_pyscard: there is no program {name!r}", file=sys.stderr)
        return NOT_FOUND
    sys.argv = [path, *words[1:]]
    sys.path[0] = str(Path(path).resolve().parent)
    runpy.run_path(path, run_name="__main__")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    words = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not words:
        parser.error(f"which program? {USAGE}")
    if importlib.util.find_spec("smartcard") is None:
        print(
            "under_pyscard: pyscard is not installed for this Python. It comes by: "
            "pip install pyscard, or apt install python3-pyscard",
            file=sys.stderr,
        )
        return 1
    try:
        _function()
        if options.virtual or options.reader or options.usb:
            from ccid.pcsc.scard import chosen_readers

            chosen_readers.choose_by_options(options)
    except CcidError as error:
        print(f"under_pyscard: {error}", file=sys.stderr)
        return 1
    return _run(words, options.module)


if __name__ == "__main__":
    sys.exit(main())
