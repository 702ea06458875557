"""T=1 between our machine and a card written from the standard, over a line with errors.

Blocks are corrupted, lost, doubled or one turn late, in either direction and in any mix. Whatever
happens, a command ends within a bounded number of blocks, with the right response or a
ProtocolError, and is executed at most once. Corruptions that the check code does not detect are
left out and counted.

Blocks are corrupted, lost, doubled, and come one turn late, in either direction and in any mix.
Whatever happens, a command ends within a bounded number of blocks, in the right response or in a
ProtocolError, and is carried out at most once. Corruptions that the check code does not detect
are left out and counted.

``tools/full`` runs 100,000 conversations. They are seeded: a failure names the seed and the number
of the conversation.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ccid.errors import CardMute, ProtocolError
from ccid.iso7816.protocol_runner import run
from ccid.iso7816.t1 import MAX_NOTICES, RESYNCH_ATTEMPTS, RETRIES, T1, Block, LinkError, Reply
from ccid.virtual.cards import contact_faults
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.t1_blocks import Check
from ccid.virtual.cards.t1_card import T1Card, T1Options
from tests.conftest import Tell

SEED = 20061101


@dataclass
class Direction:
    """One way of the line.

    Attributes:
        rng: The random numbers.
        rate: Share of the blocks that get an error.
        pending: The block that comes one turn late; at most one.
        seen: Number of errors, by kind.
    """

    rng: random.Random
    rate: float
    check: Check
    seen: Counter[str]
    pending: list[bytes] = field(default_factory=list)

    def carry(self, blocks: list[bytes]) -> list[bytes]:
        """The blocks that arrive in this turn when ``blocks`` are sent."""
        out, self.pending = self.pending, []
        for block in blocks:
            if self.pending:  # a line never changes the order of blocks
                self.seen["lost behind a late one"] += 1
                continue
            fate = self._fate()
            self.seen[fate] += 1
            if fate == "corrupted":
                out.append(self._corrupted(block))
            elif fate == "doubled":
                out += [block, block]
            elif fate == "late":
                self.pending = [block]
            elif fate != "lost":
                out.append(block)
        return out

    def _fate(self) -> str:
        if self.rng.random() >= self.rate:
            return "delivered"
        return self.rng.choice(("corrupted", "lost", "doubled", "late"))

    def _corrupted(self, block: bytes) -> bytes:
        while True:
            bad = bytearray(block)
            for _ in range(self.rng.choice((1, 1, 2, 5))):
                bad[self.rng.randrange(len(bad))] ^= self.rng.randrange(1, 256)
            if self.rng.random() < 0.2:
                del bad[self.rng.randrange(1, len(bad)) :]
            if not self._passes(bytes(bad)):
                return bytes(bad)
            self.seen["undetectable, left out"] += 1

    def _passes(self, bad: bytes) -> bool:
        """True if the check code does not detect the corruption, or the host detects it only by the
        length."""
        n = self.check.length
        end = 3 + bad[2] if len(bad) >= 3 else 0
        return len(bad) >= end + n >= 3 + n and self.check.of(bad[:end]) == bad[end : end + n]


class Line:
    """A link between host and card. The host gets the first block that arrives in a turn; the next
    block waits for the next turn, as with a reader that is one answer behind."""

    def __init__(self, card: T1Card, there: Direction, back: Direction) -> None:
        self.card = card
        self.there = there
        self.back = back
        self.waiting: list[bytes] = []
        self.blocks = 0

    def __call__(self, block: Block) -> Reply:
        self.blocks += 1
        said: list[bytes] = []
        for heard in self.there.carry([block.data]):
            said += [sent.data for sent in self.card.receive(heard)]
        self.waiting += self.back.carry(said)
        if not self.waiting:
            return self.back.rng.choice((LinkError.MUTE, LinkError.PARITY, LinkError.OTHER))
        first, self.waiting = self.waiting[0], self.waiting[1:2]
        return first


class Teller:
    """An application that counts commands, and whose response proves which command it answers."""

    def __init__(self) -> None:
        self.done: Counter[bytes] = Counter()

    def transmit(self, apdu: bytes) -> Answer:
        self.done[apdu] += 1
        return Answer(answer_to(apdu)[:-2], 0x9000)


def answer_to(apdu: bytes) -> bytes:
    """The response to ``apdu``: as long as P1 P2 say, and different for every command."""
    size = int.from_bytes(apdu[2:4], "big")
    seed = hashlib.blake2b(apdu).digest()
    return (seed * (size // len(seed) + 1))[:size] + b"\x90\x00"


def most_blocks(apdu: bytes, ifsc: int, ifsd: int, extensions: int) -> int:
    """The most blocks that one command may need."""
    steps = -(-len(apdu) // ifsc) + -(-len(answer_to(apdu)) // min(ifsd, 32)) + 2
    each = RETRIES + 1 + MAX_NOTICES
    return (RESYNCH_ATTEMPTS + 1) * (steps * each + RESYNCH_ATTEMPTS) + extensions * (each + 1)


FAULTS: tuple[Callable[[random.Random], contact_faults.ContactFault], ...] = (
    lambda rng: contact_faults.asks_wtx(rng.randrange(1, 256), after=rng.randrange(4)),
    lambda rng: contact_faults.asks_ifs(rng.randrange(8, 255), after=rng.randrange(4)),
    lambda rng: contact_faults.aborts(on=rng.choice("IR"), after=rng.randrange(6)),
    lambda rng: contact_faults.asks_resynch(after=rng.randrange(6)),
)
"""What the card may start by itself during a command."""


def converse(rng: random.Random, seen: Counter[str]) -> None:
    """One conversation: a card, a line, some commands."""
    crc = rng.random() < 0.2
    check = rng.choice((Check.CRC, Check.CRC_13239)) if crc else Check.LRC
    ifsc, ifsd = rng.choice((1, 5, 16, 32, 64, 254)), rng.choice((16, 32, 100, 254))
    teller = Teller()
    card = T1Card(teller.transmit, T1Options(check=check), ifsc=ifsc)
    rate = rng.choice((0.0, 0.02, 0.1, 0.3, 0.6))
    there = Direction(rng, rate, check, seen)
    back = Direction(rng, rate * rng.choice((0.0, 1.0)), check, seen)
    line = Line(card, there, back)
    host = T1(ifsc, crc=crc)
    if rng.random() < 0.8:
        try:
            run(host.announce_ifsd(ifsd), line)
        except CardMute:
            seen["mute at the first block"] += 1
            return
    requests = 0
    if rng.random() < 0.3:
        card.faults += [rng.choice(FAULTS)(rng) for _ in range(rng.randrange(1, 4))]
        requests = len(card.faults)
    for number in range(rng.randrange(1, 5)):
        size = rng.choice((0, 1, 20, 200, 600) if ifsc > 5 else (0, 1, 20))
        length = rng.choice((0, 1, 30, 250, 700))
        apdu = bytes((number, rng.randrange(256))) + length.to_bytes(2, "big") + rng.randbytes(size)
        before, blocks = teller.done[apdu], line.blocks
        response, most = None, 0
        try:
            response = run(host.exchange(apdu), line)
        except ProtocolError as error:
            most = 1 if error.may_have_executed else 0
        done = teller.done[apdu] - before
        if response is None:
            assert done <= most, "executed more than it says"
        else:
            assert response == answer_to(apdu), "a wrong response"
            assert done == 1, "not executed exactly once"
        seen["ended in an error" if response is None else "ended well"] += 1
        limit = most_blocks(apdu, min(ifsc, host.ifsc), ifsd, requests)
        assert line.blocks - blocks <= limit, "too many blocks"


def test_conversations(full: bool, tell: Tell) -> None:
    count = 100_000 if full else 2_000
    seen: Counter[str] = Counter()
    for number in range(count):
        try:
            converse(random.Random(f"{SEED}/{number}"), seen)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}, conversation {number}: {error}") from error
    assert seen["ended well"] > count
    assert seen["ended in an error"] > count / 100
    for fate in ("corrupted", "lost", "doubled", "late"):
        assert seen[fate] > count / 4
    tell(f"T=1: {count} conversations, seed {SEED}: {dict(sorted(seen.items()))}")


def test_an_undisturbed_line_needs_no_more_blocks_than_it_must() -> None:
    teller = Teller()
    card = T1Card(teller.transmit, ifsc=32)
    clear = Direction(random.Random(0), 0.0, Check.LRC, Counter())
    line = Line(card, clear, clear)
    host = T1(32)
    apdu = bytes((0, 0, 1, 0)) + bytes(60)  # 64 bytes are two blocks, 258 back are nine of 32
    assert run(host.exchange(apdu), line) == answer_to(apdu)
    assert line.blocks == 2 + 9 - 1


def test_what_the_line_is_made_of() -> None:
    """Test of the line itself: one block for each kind of error."""
    rng = random.Random(1)
    seen: Counter[str] = Counter()
    way = Direction(rng, 1.0, Check.LRC, seen)
    block = bytes.fromhex("0000 02 9000 92")
    came = [way.carry([block]) for _ in range(200)]
    assert {len(c) for c in came} >= {0, 1, 2}
    assert sum(c.count(block) for c in came) < 400
    assert set(seen) >= {"corrupted", "lost", "doubled", "late"}
