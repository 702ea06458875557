"""The base class of virtual cards, and the response APDU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field

from ccid.codes import VoltageSupport
from ccid.errors import InvalidApdu
from ccid.ground.records import record
from ccid.iso7816.apdu import CommandApdu

INS_WITH_DATA = frozenset(
    bytes.fromhex(
        "04 0C 0E 0F 10 20 21 22 24 25 28 2A 2B 2C 2D 44 46 47 82 86 87 88 89 A0 A1 A2 A4"
        "B1 B3 C2 C3 CB D0 D1 D2 D6 D7 DA DB DC DD DE E0 E1 E2 E4 E6"
    )
)
"""INS that send data in T=0 when P3 is not 0 (ISO/IEC 7816-4:2013, table 4)."""


@record
class Answer:
    """A response APDU.

    Attributes:
        data: The response data field.
        sw: SW1 SW2.
        after_s: Seconds that the card takes for the command.
    """

    data: bytes = field(default=b"", repr=False)
    sw: int = 0x9000
    after_s: float = 0.0

    @property
    def apdu(self) -> bytes:
        """Data and SW1 SW2."""
        return self.data + self.sw.to_bytes(2, "big")


DONE = Answer()
"""SW1 SW2 = 9000 without data."""
Later = Callable[[Answer | None, float], None]
"""Takes the answer to a command, None from a mute card, and the time of the answer in seconds."""


class Mute(Exception):
    """The card does not answer, to a reset or to a command."""


class Application(ABC):
    """A card: an ATR, and a response APDU for every command APDU.

    Attributes:
        atr: The answer to reset.
        voltages: The voltages at which the card works; at another voltage the card is mute.
        takes_envelope: In T=0 the card takes whole APDUs by ENVELOPE.
        commands: Number of command APDUs that the card carried out.
        resets: Number of power-ups and resets of the card.
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
        """Power-up or reset: the card forgets what was selected and verified."""
        self.resets += 1

    def power_off(self) -> None:  # noqa: B027 - most cards need not know
        """The card loses its power."""

    def takes_data(self, header: bytes) -> bool:
        """True if data go to the card with this header, CLA INS P1 P2 P3, in T=0.

        In T=0 both sides know the direction of the data from the command, before the data
        (ISO/IEC 7816-3:2006 10.3.2). This method decides by INS: the instructions of
        ISO/IEC 7816-4 and -8 that send data.
        """
        return header[1] in INS_WITH_DATA

    @abstractmethod
    def process(self, command: CommandApdu) -> Answer:
        """Carry out ``command``. The caller cuts response data that are longer than Ne."""

    def begin(self, apdu: bytes, now: float, later: Later) -> Answer | None:
        """Start to carry out a command APDU.

        Args:
            apdu: The command APDU.
            now: The time, seconds of the clock of the device.
            later: Gets the answer if it is not there at once.

        Returns:
            The answer; None if ``later`` gets the answer.

        Raises:
            Mute: The card does not answer.
        """
        return self.transmit(apdu)

    def transmit(self, apdu: bytes) -> Answer:
        """Carry out a command APDU; ``67 00`` for malformed bytes (ISO/IEC 7816-4:2013 5.6)."""
        try:
            command = CommandApdu.parse(apdu)
        except InvalidApdu:
            return Answer(sw=0x6700)
        self.commands += 1
        return self.process(command)
