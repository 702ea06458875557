"""A card of ISO/IEC 14443-4 type A: any application, without contacts. Pure."""

from __future__ import annotations

from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.atr import Atr
from ccid.virtual.cards.application import Answer, Application, Later
from ccid.virtual.cards.file_system import FileSystemCard
from ccid.virtual.cards.picc import PCSC, Picc, contactless_atr

FORMAT = bytes.fromhex("78808002")
"""T0, TA, TB and TC of the ATS: frames of 256 bytes; 106 kbit/s; 77 ms; a CID (ISO/IEC 14443-4,
5.2)."""


class Iso14443Card(Picc):
    """A contactless card that takes APDUs. A reader makes its ATR of the historical bytes of its
    ATS (PC/SC part 3, 3.1.3.2.3.1).

    Args:
        application: What is on the card; by default a
            :class:`~ccid.virtual.cards.file_system.FileSystemCard`.
        uid: The UID.
        historical: The historical bytes of the ATS; None for those of the application's ATR.
        whole_ats: The reader returns the whole ATS, as readers of ACS do, and not the historical
            bytes alone.
    """

    def __init__(
        self,
        application: Application | None = None,
        uid: bytes = bytes.fromhex("04112233445566"),
        historical: bytes | None = None,
        *,
        whole_ats: bool = False,
    ) -> None:
        self.application = application or FileSystemCard()
        if historical is None:
            historical = Atr.parse(self.application.atr).historical
        ats = bytes((1 + len(FORMAT) + len(historical),)) + FORMAT + historical
        super().__init__(uid, contactless_atr(historical), ats if whole_ats else historical)

    def reset(self) -> None:
        """The card leaves the field and comes back."""
        super().reset()
        self.application.reset()

    def power_off(self) -> None:
        """The field is switched off."""
        self.application.power_off()

    def takes_data(self, header: bytes) -> bool:
        """True if data go to the card with this header."""
        return super().takes_data(header) or self.application.takes_data(header)

    def begin(self, apdu: bytes, now: float, later: Later) -> Answer | None:
        """Start to carry out a command; an answer that takes its time is the application's."""
        if apdu[:1] == bytes((PCSC,)):
            return self.transmit(apdu)
        self.commands += 1
        return self.application.begin(apdu, now, later)

    def on_air(self, command: CommandApdu) -> Answer:
        """Carry out a command on the application."""
        return self.application.process(command)
