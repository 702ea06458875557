"""Where the lines of ``ccid-probe shell`` come from: prompt_toolkit, a plain terminal, or a script.

No history has a PIN or a key in it (:func:`ccid.probe.shell_lines.is_kept`). prompt_toolkit is
imported when it is used.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ccid.probe.shell_lines import completions, concealed, is_kept
from ccid.probe.text_file import utf8

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

MOST_LINES = 1000
"""Lines of the history that are read again."""
MOST_BYTES = 1 << 20
"""Bytes at the end of the history file that are read. A file that has grown longer is written anew,
with half as many at most."""
LONGEST_LINE = 1 << 20
"""Bytes of a line in a script. The longest APDU has 65,544 bytes."""
Names = Callable[[], Sequence[str]]
"""Tells the names of the readers."""


class Prompt(Protocol):
    """Asks for lines and for PINs."""

    is_script: bool

    def line(self) -> str:
        """The next line. Raises EOFError at the end."""

    def secret(self, question: str) -> str:
        """A PIN, which is not shown. Raises EOFError at the end."""


class ScriptPrompt:
    """Takes lines from a script. The PIN that a command asks for is the next line.

    Args:
        lines: The lines.
    """

    is_script = True

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.number = 0

    def line(self) -> str:
        """The next line."""
        for text in self._lines:
            self.number += 1
            return text.rstrip("\r\n")
        raise EOFError

    def secret(self, question: str) -> str:
        """The next line."""
        return self.line()


def standard_lines() -> Iterator[str]:
    """The lines of standard input, as they come.

    Raises:
        OSError: A line has no end, or is not UTF-8.
    """
    number = 0
    source = getattr(sys.stdin, "buffer", sys.stdin)
    while source is not None and (line := source.readline(LONGEST_LINE + 1)):
        if len(line) > LONGEST_LINE:
            raise OSError(f"standard input: a line has more than {LONGEST_LINE >> 20} MiB")
        number += 1
        yield utf8(line, "standard input", number) if isinstance(line, bytes) else line


class PlainPrompt:
    """A terminal without prompt_toolkit: readline where Python has it.

    Args:
        names: Tells the names of the readers.
    """

    is_script = False

    def __init__(self, names: Names) -> None:
        self._readline: Any = None
        with suppress(ImportError):
            import readline

            self._readline = readline
            readline.set_auto_history(False)
            readline.set_completer_delims(" ")
            found: list[str] = []

            def complete(word: str, state: int) -> str | None:
                if state == 0:
                    text = readline.get_line_buffer()[: readline.get_endidx()]
                    found[:] = [one.text for one in completions(text, names())]
                return found[state] if state < len(found) else None

            readline.set_completer(complete)
            readline.parse_and_bind("tab: complete")
            for old in HistoryFile().lines():
                readline.add_history(old)

    def line(self) -> str:
        """The next line."""
        text = input("ccid> ")
        if self._readline is not None and is_kept(text):
            self._readline.add_history(text)
            HistoryFile().add(text)
        return text

    def secret(self, question: str) -> str:
        """A PIN, which getpass does not show."""
        return getpass.getpass(question)


class HistoryFile:
    """The history on disk, which only this user can read.

    Args:
        file: The file; None for that of the user.
    """

    def __init__(self, file: Path | None = None) -> None:
        state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        self.file = file or Path(state, "ccid", "shell_history")

    def lines(self) -> list[str]:
        """The lines, the oldest first, at most :data:`MOST_LINES`; none if it cannot be read."""
        with suppress(OSError):
            descriptor = os.open(self.file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                    return []
                file.seek(max(0, found.st_size - MOST_BYTES))
                if file.tell():
                    file.readline(MOST_BYTES)  # the rest of a line
                data = file.read(MOST_BYTES)
            lines = data.decode("utf-8", "replace").splitlines()
            return [line for line in lines if is_kept(line)][-MOST_LINES:]
        return []

    def add(self, text: str) -> None:
        """Add a line that :func:`is_kept` takes. A file that cannot be written, or is not ours, is
        left alone."""
        if not is_kept(text):
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with suppress(OSError):
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.file, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
            with os.fdopen(descriptor, "ab") as file:
                found = os.fstat(descriptor)
                is_ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
                if not (stat.S_ISREG(found.st_mode) and is_ours):
                    return
                file.write(f"{text.strip()}\n".encode("utf-8", "backslashreplace"))
                length = file.tell()
            if length > MOST_BYTES:
                self._shorten()

    def _shorten(self) -> None:
        """Write the file anew with its newest lines. What another shell adds meanwhile is lost."""
        kept: list[bytes] = []
        room = MOST_BYTES // 2
        for line in reversed(self.lines()):
            data = f"{line}\n".encode("utf-8", "backslashreplace")
            if len(data) > room:
                break
            kept.append(data)
            room -= len(data)
        new = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(reversed(kept))
            os.replace(new, self.file)
        finally:
            with suppress(OSError):
                new.unlink()


def rich_prompt(names: Names) -> Prompt:
    """A prompt of prompt_toolkit: history, completion, and PINs masked while they are typed.

    Args:
        names: Tells the names of the readers.

    Raises:
        ImportError: There is no prompt_toolkit.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.completion import Completion as Choice
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.history import History
    from prompt_toolkit.layout.processors import (
        Processor,
        Transformation,
        TransformationInput,
    )
    from prompt_toolkit.output import ColorDepth

    kept = HistoryFile()

    class KeptHistory(History):
        """The history file; a line with a secret goes neither there nor into memory."""

        def load_history_strings(self) -> Iterator[str]:
            yield from reversed(kept.lines())

        def store_string(self, string: str) -> None:
            kept.add(string)

        def append_string(self, string: str) -> None:
            if is_kept(string):
                super().append_string(string)

    class LineCompleter(Completer):
        """Commands, status words, applications, readers."""

        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterator[Completion]:
            for one in completions(document.text_before_cursor, names()):
                yield Choice(one.text, -one.replaced, display_meta=one.meaning)

    class Concealing(Processor):
        """Shows an asterisk for each digit of a PIN or a key."""

        def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
            fragments = transformation_input.fragments
            text = "".join(fragment[1] for fragment in fragments)
            shown = concealed(text)
            if shown == text:
                return Transformation(fragments)
            masked: StyleAndTextTuples = [("", shown)]
            return Transformation(masked)

    class RichPrompt:
        """Asks by prompt_toolkit."""

        is_script = False

        def __init__(self) -> None:
            depth = ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None
            self._session: PromptSession[str] = PromptSession(
                history=KeptHistory(),
                completer=LineCompleter(),
                complete_while_typing=False,
                input_processors=[Concealing()],
                color_depth=depth,
            )
            self._secrets: PromptSession[str] = PromptSession(is_password=True, color_depth=depth)

        def line(self) -> str:
            """The next line."""
            return self._session.prompt("ccid> ")

        def secret(self, question: str) -> str:
            """A PIN, with an asterisk for each character."""
            return self._secrets.prompt(question)

    return RichPrompt()


def prompt_for(names: Names) -> tuple[Prompt, str]:
    """The best prompt there is, and a remark on it; empty if there is nothing to say.

    Args:
        names: Tells the names of the readers.
    """
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        return ScriptPrompt(standard_lines()), ""
    if os.environ.get("TERM") != "dumb":
        try:
            return rich_prompt(names), ""
        except ImportError:
            pass
    return PlainPrompt(names), (
        "a PIN in an APDU is seen while you type it (`verify` asks for a PIN and shows none); "
        "pip install 'pyccid[terminal]' masks it, and completes what you type"
    )
