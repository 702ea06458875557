"""What a virtual card is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ccid.codes import VoltageSupport
from ccid.errors import InvalidApdu
from ccid.iso7816.apdu import CommandApdu


@dataclass(frozen=True, slots=True)
class Answer:
    """A response APDU.

    Attributes:
        data: The response data field.
        sw: SW1 SW2.
        after_s: Seconds the card takes for it.
    """

    data: bytes = field(default=b"", repr=False)
    sw: int = 0x9000
    after_s: float = 0.0

    @property
    def apdu(self) -> bytes:
        """Data and SW1 SW2."""
        return self.data + self.sw.to_bytes(2, "big")


class Application(ABC):
    """A card: an ATR, and an answer to every command.

    Attributes:
        atr: The answer to reset.
        voltages: Those it works at; at another it is mute.
        commands: How many command APDUs it carried out.
        resets: How often it was powered up or reset.
    """

    atr: bytes = bytes.fromhex("3B00")
    voltages: VoltageSupport = VoltageSupport.V5_0 | VoltageSupport.V3_0 | VoltageSupport.V1_8

    def __init__(self, atr: bytes | None = None) -> None:
        if atr is not None:
            self.atr = atr
        self.commands = 0
        self.resets = 0

    def reset(self) -> None:
        """It is powered up or reset: whatever was selected or verified is so no more."""
        self.resets += 1

    @abstractmethod
    def process(self, command: CommandApdu) -> Answer:
        """Carry out ``command``. More response data than Ne are cut by the caller."""

    def transmit(self, apdu: bytes) -> Answer:
        """Carry out a command APDU; ``67 00`` if it is none (ISO/IEC 7816-4:2013 5.6)."""
        try:
            command = CommandApdu.parse(apdu)
        except InvalidApdu:
            return Answer(sw=0x6700)
        self.commands += 1
        return self.process(command)
