"""What a virtual card is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ccid.codes import VoltageSupport
from ccid.errors import InvalidApdu
from ccid.iso7816.apdu import CommandApdu

INS_WITH_DATA = frozenset(
    bytes.fromhex(
        "04 0C 0E 0F 10 20 21 22 24 25 28 2A 2B 2C 2D 44 46 47 82 86 87 88 89 A0 A1 A2 A4"
        "B1 B3 C2 C3 CB D0 D1 D2 D6 D7 DA DB DC DD DE E0 E1 E2 E4 E6"
    )
)
"""INS that send data in T=0 when P3 is not 0 (ISO/IEC 7816-4:2013, table 4)."""


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


DONE = Answer()
"""9000 and no data."""


class Application(ABC):
    """A card: an ATR, and an answer to every command.

    Attributes:
        atr: The answer to reset.
        voltages: Those it works at; at another it is mute.
        takes_envelope: In T=0 it takes whole APDUs by ENVELOPE.
        commands: How many command APDUs it carried out.
        resets: How often it was powered up or reset.
    """

    atr: bytes = bytes.fromhex("3B00")
    takes_envelope: bool = True
    voltages: VoltageSupport = VoltageSupport.V5_0 | VoltageSupport.V3_0 | VoltageSupport.V1_8

    def __init__(self, atr: bytes | None = None) -> None:
        if atr is not None:
            self.atr = atr
        self.commands = 0
        self.resets = 0

    def reset(self) -> None:
        """It is powered up or reset: whatever was selected or verified is so no more."""
        self.resets += 1

    def takes_data(self, header: bytes) -> bool:
        """True if data go to the card with this header, CLA INS P1 P2 P3, in T=0.

        In T=0 the direction is known from the command, to both sides and beforehand (ISO/IEC
        7816-3:2006 10.3.2). Here it is by INS: those of ISO/IEC 7816-4 and -8 that send data.
        """
        return header[1] in INS_WITH_DATA

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
