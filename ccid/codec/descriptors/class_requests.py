"""Class-specific requests on the control pipe (USB CCID rev 1.1, 5.3)."""

from __future__ import annotations

from ccid.codes import ClassRequest
from ccid.errors import MalformedDescriptor
from ccid.ground.records import record

REQUEST_OUT = 0x21
"""bmRequestType: class-specific request to an interface, host to device or without data."""
REQUEST_IN = 0xA1
"""bmRequestType: class-specific request to an interface, device to host."""


@record
class ClassControl:
    """The setup packet of a class-specific request (USB CCID rev 1.1, 5.3)."""

    bmRequestType: int
    bRequest: int
    wValue: int
    wIndex: int
    wLength: int = 0

    @classmethod
    def abort(cls, interface: int, slot: int, bSeq: int) -> ClassControl:
        """5.3.1: the first half of the ABORT pair. ``bSeq`` is the bSeq of PC_to_RDR_Abort."""
        return cls(REQUEST_OUT, ClassRequest.ABORT, bSeq << 8 | slot, interface)

    @classmethod
    def get_clock_frequencies(cls, interface: int, bNumClockSupported: int) -> ClassControl:
        """5.3.2: ask for the clock frequencies (kHz) that the reader supports."""
        wLength = 4 * bNumClockSupported
        return cls(REQUEST_IN, ClassRequest.GET_CLOCK_FREQUENCIES, 0, interface, wLength)

    @classmethod
    def get_data_rates(cls, interface: int, bNumDataRatesSupported: int) -> ClassControl:
        """5.3.3: ask for the data rates (bit/s) that the reader supports."""
        wLength = 4 * bNumDataRatesSupported
        return cls(REQUEST_IN, ClassRequest.GET_DATA_RATES, 0, interface, wLength)


def parse_u32_list(data: bytes, field: str) -> list[int]:
    """The numbers that GET_CLOCK_FREQUENCIES (kHz) or GET_DATA_RATES (bit/s) returned.

    Args:
        data: The bytes from the reader.
        field: Name of the list, for the error.

    Raises:
        MalformedDescriptor: The length of ``data`` is no multiple of 4 bytes.
    """
    if len(data) % 4:
        raise MalformedDescriptor(
            f"{field}: {len(data)} bytes are no list of 32-bit numbers", field=field
        )
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
