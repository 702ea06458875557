"""Command APDUs and their responses, as the commands send, show and write them: a PIN or a key is
masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ccid.iso7816.status_words import explain
from ccid.masking.exchange_watch import hidden
from ccid.masking.secret_commands import Secrecy, visible_length
from ccid.probe.output import Painted, colour_of_status, say

MASKED = "masked: --trace-secrets shows it"


class Transmits(Protocol):
    """A card that takes command APDUs."""

    def transmit(self, apdu: bytes) -> bytes:
        """Send a command APDU; return the response APDU."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A command APDU and its response, with no secret in them unless that was asked for.

    Attributes:
        command: The command APDU; a secret in it is masked.
        response: The response with SW1 SW2; masked as the command is.
        is_masked: Whether something is masked.
        what: What the command is, in words; empty if the user knows.
    """

    command: bytes
    response: bytes
    is_masked: bool = False
    what: str = ""

    @property
    def sw(self) -> int:
        """SW1 SW2 as one number."""
        return int.from_bytes(self.response[-2:], "big")

    def show(self) -> None:
        """Print the exchange."""
        label = MASKED if self.is_masked else self.what
        say(f"> {self.command.hex(' ').upper()}{'  ' if label else ''}{label}")
        data, sw = self.response[:-2], self.response[-2:]
        if data:
            say(f"< {data.hex(' ').upper()}")
        say(Painted(f"< {sw.hex(' ').upper()}  {explain(self.sw)}", colour_of_status(self.sw)))

    def as_json(self) -> dict[str, Any]:
        """The exchange in a JSON document."""
        return {
            "command": self.command.hex().upper(),
            "response": self.response[:-2].hex().upper(),
            "sw": f"{self.sw:04X}",
            "meaning": explain(self.sw),
            "masked": self.is_masked,
        }


class Exchanges:
    """Sends APDUs to one card, one after the other. Whether a command is masked may depend on the
    command before it.

    Args:
        reveal: Whether secrets are shown.
    """

    def __init__(self, reveal: bool) -> None:
        self._reveal = reveal
        self._secrecy = Secrecy()

    def send(self, card: Transmits, apdu: bytes, what: str = "") -> Exchange:
        """Send an APDU.

        Args:
            card: The card.
            apdu: The command APDU.
            what: What the command is, in words.

        Raises:
            CcidError: The APDU is none, or the card or the reader failed.
        """
        response = card.transmit(apdu)
        if not self._secrecy.begins(apdu) or self._reveal:
            return Exchange(apdu, response, what=what)
        shown = hidden(apdu, visible_length(apdu)), hidden(response[:-2]) + response[-2:]
        return Exchange(*shown, is_masked=shown != (apdu, response), what=what)
