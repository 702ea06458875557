"""``ccid-probe shell``: APDUs and commands, line by line, to a card that stays powered."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from ccid.device.card import Card
from ccid.device.find import list_readers
from ccid.device.reader import Reader
from ccid.device.slot import Slot
from ccid.errors import CcidError
from ccid.ground.hexadecimal import mentioned
from ccid.iso7816.status_words import explain
from ccid.probe.card_command import show_card
from ccid.probe.exchanges import Exchange, Exchanges
from ccid.probe.reader_choice import (
    card_slot,
    flush,
    note,
    opened,
    protocol_of,
    readers,
    say,
    slot_of,
    virtual_infos,
)
from ccid.probe.shell_lines import (
    COMMANDS,
    Line,
    WrongLine,
    fits,
    parse,
    select_apdu,
    verify_apdu,
)
from ccid.probe.shell_prompt import Prompt, ScriptPrompt, prompt_for
from ccid.probe.termination import Terminated
from ccid.probe.text_file import read_script

DEEPEST = 8
"""How many scripts may run each other."""


def run(options: argparse.Namespace) -> int:
    """Carry out the lines. A script ends at the first line that fails, with exit status 1."""
    with Shell(options) as shell:
        prompt, remark = prompt_for(shell.names)
        if not prompt.is_script:
            say(f"{shell.reader.name}, slot {options.slot}: APDUs in hexadecimal, or `help`")
            if remark:
                note(remark)
        return shell.all(prompt)


class Shell:
    """A reader, and the card in one of its slots, for one line after the other.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stack = ExitStack()
        self._exchanges = Exchanges(options.trace_secrets)
        self._last: Exchange | None = None
        self._card: Card | None = None
        self._depth = 0
        self.reader: Reader
        self._slot: Slot

    def __enter__(self) -> Shell:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def names(self) -> list[str]:
        """The names of the readers."""
        if self._options.virtual:
            return [info.name for info in virtual_infos(self._options)]
        return [info.name for info in list_readers()]

    def all(self, prompt: Prompt) -> int:
        """Carry out all lines; return the exit status."""
        while True:
            try:
                text = prompt.line()
            except EOFError:
                return 0
            except KeyboardInterrupt as error:
                if prompt.is_script or isinstance(error, Terminated):
                    raise
                say()
                continue
            except OSError as error:  # a line that is no text
                note(f"{error}")
                return 1
            try:
                if not self.does(text, prompt):
                    return 0
            except BrokenPipeError:  # nobody reads on: no error
                raise
            except (WrongLine, CcidError, OSError) as error:
                self._forget_lost_card()
                where = f"line {prompt.number}: " if isinstance(prompt, ScriptPrompt) else ""
                note(f"{where}{error}")
                if prompt.is_script:
                    return 1
            except EOFError:  # no PIN came
                if prompt.is_script:
                    note("the script ends where a PIN should be")
                    return 1
            except KeyboardInterrupt as error:
                if prompt.is_script or isinstance(error, Terminated):
                    raise
                say("interrupted")
                self._forget_lost_card()
            flush()

    def does(self, text: str, prompt: Prompt) -> bool:
        """Carry out one line; False if it ends the shell.

        Raises:
            WrongLine: The line means nothing, or what it expects is not so.
            CcidError: Reader or card failed.
            OSError: A script cannot be read.
        """
        line = parse(text)
        if line is None:
            return True
        match line.command:
            case "quit":
                return False
            case "":
                self._send(line.apdu)
            case "<":
                self._script(line.arguments[0])
            case "verify":
                reference, length = (*line.arguments, "")[:2]
                verify_apdu(reference, length, "0")
                self._send(verify_apdu(reference, length, prompt.secret("PIN: ")))
            case "select":
                self._send(select_apdu(line.arguments[0]))
            case _:
                self._other(line)
        return True

    def _other(self, line: Line) -> None:
        """The commands that send no APDU."""
        match line.command:
            case "help":
                for name, (usage, told) in COMMANDS.items():
                    say(f"  {f'{name} {usage}':20} {told}")
                say(f"  {'HEX':20} send a command APDU")
                say(f"  {'< FILE':20} carry out the lines of a file")
            case "expect":
                if self._last is None:
                    raise WrongLine("no command was sent yet")
                if not fits(self._last.sw, line.arguments[0]):
                    raise WrongLine(
                        f"SW {line.arguments[0].upper()} was expected, it is {self._last.sw:04X}: "
                        f"{explain(self._last.sw)}"
                    )
            case "sw":
                fits(0, line.arguments[0])
                if "x" in line.arguments[0].lower():
                    raise WrongLine("a status word has four hexadecimal digits")
                say(f"{line.arguments[0].upper()}: {explain(int(line.arguments[0], 16))}")
            case "atr":
                show_card(self.card())
            case "status":
                say(f"{self._slot.status().name.lower()}")
            case "reset":
                kind = (line.arguments or ("warm",))[0].lower()
                if kind not in ("warm", "cold"):
                    raise WrongLine("it is: reset [warm|cold]")
                say(f"ATR: {self.card().reset(cold=kind == 'cold')}")
            case "readers":
                for info in virtual_infos(None) if self._options.virtual else list_readers():
                    say(f"{info.name}: {info.id} at {info.path}")
            case "reader":
                self._change(reader=line.arguments[0], slot=0)
            case "slot":
                if not line.arguments[0].isdecimal():
                    raise WrongLine("a slot is a number from 0")
                self._change(reader=self._options.reader, slot=int(line.arguments[0][:4]))

    def card(self) -> Card:
        """The card; powers it if it has no power."""
        if self._card is None:
            self._card = self._slot.connect(protocol_of(self._options))
            self._exchanges = Exchanges(self._options.trace_secrets)
            say(f"ATR: {self._card.atr}  {self._card.protocol}")
        return self._card

    def _send(self, apdu: bytes) -> None:
        self._last = self._exchanges.send(self.card(), apdu)
        self._last.show()

    def _script(self, file: str) -> None:
        """Carry out the lines of a file.

        Raises:
            WrongLine: A line fails, or the file runs itself.
        """
        if "\0" in file:
            raise WrongLine("no file has a NUL character in its name")
        if self._depth == DEEPEST:
            raise WrongLine(f"{DEEPEST} scripts run each other: one runs itself")
        try:
            script = ScriptPrompt(read_script(file))
        except OSError as error:  # an APDU with a PIN may have been taken for a name
            told = f"{error.strerror}: {mentioned(file)}" if error.strerror else str(error)
            raise WrongLine(told) from None
        self._depth += 1
        try:
            if self.all(script):
                raise WrongLine(f"{file}: line {script.number} failed")
        finally:
            self._depth -= 1

    def _open(self) -> None:
        self.reader = self._stack.enter_context(opened(self._options))
        self._slot = card_slot(self.reader, self._options)

    def _change(self, reader: str | None, slot: int) -> None:
        """Go on with another reader or slot. If there is none, the one before goes on."""
        options = self._options
        before = options.reader, options.slot
        options.reader, options.slot = reader, slot
        try:
            readers(options)
            if reader == before[0]:
                slot_of(self.reader, slot)
        except CcidError:
            options.reader, options.slot = before
            raise
        self._card = None
        self._last = None
        self._stack.close()
        try:
            self._open()
        except CcidError:
            options.reader, options.slot = before
            self._stack.close()
            self._open()
            raise
        say(f"{self.reader.name}, slot {slot}")

    def _forget_lost_card(self) -> None:
        """Let the card go if it was removed or reset: the next command powers the card that is
        there then."""
        try:
            if self._card is not None and self._card.ended() is not None:
                self._card = None
        except CcidError:
            self._card = None
