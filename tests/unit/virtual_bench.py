"""The function of a virtual reader alone: commands in, replies out, time passed in."""

from __future__ import annotations

from typing import Any

from ccid.codec.messages import (
    Command,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_NotifySlotChange,
    Reply,
    parse_event,
    parse_reply,
)
from ccid.codes import CommandStatus, ExchangeLevel
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction


class Bench:
    """A function, and a clock that the test sets."""

    def __init__(self, function: CcidFunction) -> None:
        self.function = function
        self.now = 0.0

    def send(self, command: Command) -> None:
        self.function.bulk_out(command.build(), self.now)

    def reply(self) -> Reply | None:
        pulled = self.function.bulk_in.pull(70000, self.now)
        return None if pulled is None else parse_reply(pulled[0])

    def ask(self, command: Command) -> Reply:
        self.send(command)
        reply = self.reply()
        assert reply is not None
        assert (reply.bSlot, reply.bSeq) == (command.bSlot, command.bSeq)
        return reply

    def events(self) -> list[RDR_to_PC_NotifySlotChange]:
        found = []
        assert self.function.interrupt_in is not None
        while (pulled := self.function.interrupt_in.pull(64, self.now)) is not None:
            event = parse_event(pulled[0])
            assert isinstance(event, RDR_to_PC_NotifySlotChange)
            found.append(event)
        return found


def bench(level: ExchangeLevel = ExchangeLevel.SHORT_APDU, slots: int = 1, **more: Any) -> Bench:
    descriptor = make_descriptor(level, slots, **more)
    return Bench(CcidFunction(descriptor, [EchoCard() for _ in range(slots)]))


def failed(reply: Reply, bError: int) -> bool:
    return reply.command_status is CommandStatus.FAILED and reply.bError == bError


def powered(level: ExchangeLevel = ExchangeLevel.SHORT_APDU, **more: Any) -> Bench:
    b = bench(level, **more)
    b.ask(PC_to_RDR_IccPowerOn())
    return b


def xfr(b: Bench, data: bytes, level: int = 0) -> RDR_to_PC_DataBlock:
    reply = b.ask(PC_to_RDR_XfrBlock(bSeq=5, wLevelParameter=level, abData=data))
    assert isinstance(reply, RDR_to_PC_DataBlock)
    return reply
