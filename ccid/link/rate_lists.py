"""The lists that a reader gives by class-specific requests: its clocks and its data rates."""

from __future__ import annotations

from ccid.codec.descriptors import ClassControl, parse_u32_list
from ccid.link.conversation import CONTROL_TIMEOUT_MS, Conversation


def _u32_list(pipe: Conversation, request: ClassControl, field: str) -> list[int]:
    with pipe.turn(0):
        data = pipe.transport.control(request, CONTROL_TIMEOUT_MS)
    return parse_u32_list(data[: request.wLength], field)


def get_clock_frequencies(pipe: Conversation, count: int) -> list[int]:
    """GET_CLOCK_FREQUENCIES (5.3.2) of a reader that has ``count`` of them: kHz.

    Raises:
        TransportStall: It has no such request. MalformedDescriptor: No whole numbers.
    """
    request = ClassControl.get_clock_frequencies(pipe.interface, count)
    return _u32_list(pipe, request, "GET_CLOCK_FREQUENCIES")


def get_data_rates(pipe: Conversation, count: int) -> list[int]:
    """GET_DATA_RATES (5.3.3) of a reader that has ``count`` of them: bit/s.

    Raises:
        TransportStall: It has no such request. MalformedDescriptor: No whole numbers.
    """
    request = ClassControl.get_data_rates(pipe.interface, count)
    return _u32_list(pipe, request, "GET_DATA_RATES")
