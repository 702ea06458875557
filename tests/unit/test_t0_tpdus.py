"""T=0 of a virtual card by TPDUs: what the application answers arrives whole."""

from __future__ import annotations

import pytest

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.t0_tpdus import T0Face


class WarningCard(Application):
    """Answers every command with data and a warning."""

    def process(self, command: CommandApdu) -> Answer:
        return Answer(bytes(range(10)), 0x6282)


@pytest.mark.parametrize(
    "command", ["00A4000002 3F00", "00B0000004"], ids=["with data", "without data"]
)
def test_get_response_ends_with_the_status_of_the_command(command: str) -> None:
    face = T0Face(WarningCard())
    answer = face.transmit(bytes.fromhex(command))
    data = answer.data
    while answer.sw >> 8 == 0x61:
        answer = face.transmit(bytes((0, 0xC0, 0, 0, min(answer.sw & 0xFF, 3))))
        data += answer.data
    assert (data, answer.sw) == (bytes(range(10)), 0x6282)
