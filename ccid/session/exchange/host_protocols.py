"""Exchanges where the host speaks the card's protocol: T=1 at TPDU level, both at character level.

The machines are in :mod:`ccid.iso7816`; here they meet the reader. A whole APDU is one operation:
its blocks are bounded by time together and cancelled together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

from ccid.errors import CardMute, CommandFailed, ProtocolError
from ccid.iso7816 import t0, t1
from ccid.iso7816.apdu import Bytes, is_extended, octets
from ccid.iso7816.protocol_runner import run
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement
from ccid.session.exchange.block_links import BlockLink, CharacterLink, link_error
from ccid.session.exchange.refused_extended import T0, short_only


class Blocks:
    """T=1: APDUs as chains of blocks.

    Mostly one block each way is all, and the reader takes it as one XfrBlock: then the machine is
    asked for the block and for what the answer holds, and nothing else is made for it. If anything
    is otherwise, the machine begins from the start: it makes the same block, is given the answer
    that came, and goes on from there.

    Args:
        commands: The slot's commands.
        agreement: With the card; its ``t1`` goes on from APDU to APDU.
        link: How a block gets to the card.
    """

    def __init__(
        self,
        commands: SlotCommands,
        agreement: Agreement,
        link: Callable[[t1.Block], bytes | t1.LinkError],
    ) -> None:
        assert agreement.t1 is not None
        self.commands = commands
        self.machine = agreement.t1
        self.session = agreement.session
        self.agreement = agreement
        self.link = link
        self.short_way = (
            commands.t1_block_way(self._patience_s, agreement.session)
            if isinstance(link, BlockLink)
            else None
        )

    def _patience_s(self, block: Bytes) -> float:
        """Seconds to wait for the answer to a block."""
        return self.agreement.timeout_s()

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` and return the response.

        Raises:
            ProtocolError: Card and reader have lost each other; ``may_have_executed`` tells
                whether the card may have carried it out.
        """
        if self.short_way is None or type(apdu) is not bytes:
            return self._long_way(octets(apdu), self.link)
        with self.commands.turn():  # its number is this APDU's until that has ended
            block = self.machine.single(apdu)
            if block is None:
                return self._long_way(apdu, self.link)
            answer: bytes | t1.LinkError
            try:
                answer = self.short_way.transmit(block)
            except (CardMute, CommandFailed) as error:
                answer = link_error(error)
            response = self.machine.single_answer(answer)
            if response is not None:
                return response
            return self._long_way(apdu, _After(answer, self.link))

    def _long_way(self, apdu: bytes, link: Callable[[t1.Block], bytes | t1.LinkError]) -> bytes:
        exchange = self.machine.exchange(apdu)
        return self.commands.perform(partial(run, exchange, link), session=self.session)


class _After:
    """The way of a block to the card, after the first block has gone it already.

    Args:
        first: What came in answer to that.
        link: The way of all others.
    """

    def __init__(
        self, first: bytes | t1.LinkError, link: Callable[[t1.Block], bytes | t1.LinkError]
    ) -> None:
        self._first: bytes | t1.LinkError | None = first
        self._link = link

    def __call__(self, block: t1.Block) -> bytes | t1.LinkError:
        first, self._first = self._first, None
        return self._link(block) if first is None else first


class CharacterT0:
    """T=0 at character level: a TPDU by the card's procedure bytes.

    A case 4 command goes as case 3: what the card has to say it announces by 61xx.

    Args:
        commands: The slot's commands.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.session = agreement.session
        self.link = CharacterLink(commands, agreement)
        self._is_amid_a_command = False

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` as one TPDU and return the response.

        Raises:
            InvalidApdu: It does not fit into a TPDU.
            UnsupportedByReader: It is an extended APDU.
            ProtocolError: The card does not keep to the protocol; or a command before this one
                broke off in the middle, and the card would take this one for its data.
        """
        apdu = octets(apdu)
        if is_extended(apdu):
            raise short_only(self.commands, T0)
        machine = t0.procedure(apdu, self.commands.name)
        return self.commands.perform(partial(self._whole, machine), session=self.session)

    def _whole(self, machine: Generator[t0.Characters, bytes, bytes]) -> bytes:
        if self._is_amid_a_command:
            raise ProtocolError(
                f"{self.commands.name}: slot {self.commands.slot}: a command broke off in the "
                f"middle, and the card may wait for its data still: reset the card",
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        response = run(machine, self._step)
        self._is_amid_a_command = False
        return response

    def _step(self, step: t0.Characters) -> bytes:
        self._is_amid_a_command = True
        return self.link(step)


class Mapped:
    """T=0 with the whole mapping of APDUs onto TPDUs (ISO/IEC 7816-3:2006 12.2).

    Args:
        commands: The slot's commands.
        tpdu: Sends one TPDU and returns its response.
    """

    def __init__(self, commands: SlotCommands, tpdu: Callable[[bytes], bytes]) -> None:
        self.commands = commands
        self.tpdu = tpdu

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` of any case and return its whole response."""
        machine = t0.command(octets(apdu))
        return self.commands.perform(partial(run, machine, self.tpdu))
