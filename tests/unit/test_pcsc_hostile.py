"""Clients of the PC/SC service that lie, break off or die: each costs itself only.

Seeded, so that a failure can be had again; the seed is in the message.
"""

from __future__ import annotations

import random
import struct

import pytest

from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service.client_messages import BODIES, Command
from tests.conftest import Tell
from tests.unit.fake_pcsc import FakeSlot
from tests.unit.pcsc_clients import Client, Server, connect_body, request, transmit_body

SMALL, FULL = 4_000, 100_000
"""Messages, and steps of interleavings."""
ROUND = 200
"""Steps until all that is left behind is looked at, and begins anew."""
MAX_CLIENTS = 12
COMMANDS = list(Command)
TELLING = (0, 1, 2, 3, 264, 65548, 65549, 0x7FFFFFFF, 0xFFFFFFFF)


def number(random: random.Random, known: list[int]) -> int:
    """A number that may be a handle, a context, a size, or nothing."""
    choice = random.randrange(6)
    if known and choice < 3:
        return random.choice(known)
    return random.choice(
        (0, 1, 2, 3, 264, 65548, 65549, 0x7FFFFFFF, 0xFFFFFFFF, random.getrandbits(32))
    )


def message(random: random.Random, known: list[int]) -> bytes:
    """A request; often a wrong one."""
    command = random.choice(COMMANDS)
    size = random.choice(BODIES[command])
    body = b"".join(struct.pack("=I", number(random, known)) for _ in range(size // 4))
    data = b""
    if command is Command.CONNECT and random.random() < 0.8:
        name = random.choice(("Reader 00 00", "Reader 01 00", "Reader", ""))
        body = connect_body(number(random, known), name, random.randrange(5), random.randrange(8))
    elif command is Command.TRANSMIT and random.random() < 0.8:
        data = random.randbytes(random.randrange(20))
        handle, room = number(random, known), number(random, [])
        body = transmit_body(handle, len(data), random.randrange(5), room)
    elif command is Command.CONTROL and random.random() < 0.8:
        data = random.randbytes(random.randrange(20))
        body = struct.pack(
            "=6I", number(random, known), random.getrandbits(32), len(data), 300, 0, 0
        )
    elif command is Command.VERSION and random.random() < 0.8:
        body = struct.pack("=III", 4, random.randrange(2, 7), 0)
    whole = request(command, body, data)
    match random.randrange(40):
        case 0:
            return whole[: random.randrange(len(whole))]
        case 1:
            return request(random.choice((0, 3, 0x0C, 0x18, random.getrandbits(32))), body)
        case 2:
            return request(command, body + random.randbytes(random.randrange(1, 9)))
        case 3:
            return random.randbytes(random.randrange(1, 64))
    return whole


def nothing_is_left(server: Server) -> None:
    """All clients are gone, and everything that they had."""
    resources = server.core.resources
    assert not resources.contexts
    assert not resources.handles
    assert not server.core.jobs
    assert not server.core._watchers
    for slot in resources.slots:
        if slot is not None:
            assert (slot.handles, slot.queue) == ([], [])
            assert (slot.lock, slot.lock_count, slot.exclusive, slot.turn) == (None, 0, None, None)


def locks_are_held_by_those_that_live(server: Server) -> None:
    contexts = server.core.resources.contexts
    for slot in server.core.resources.slots:
        if slot is not None and slot.holder is not None:
            assert not slot.holder.is_closed
            assert contexts.get(slot.holder.context.number) is slot.holder.context


def known_numbers(server: Server) -> list[int]:
    """Contexts and handles of everybody: a liar may guess them."""
    return [*server.core.resources.contexts, *server.core.resources.handles]


def an_honest_client_is_served(server: Server) -> None:
    """On a reader that no liar can find."""
    honest = server.client()
    honest.establish()
    card = honest.connect(name="Honest 02 00")
    assert honest.rv(Command.BEGIN, card, 0) == 0
    reply = honest.ask(Command.TRANSMIT, body=transmit_body(card, 4), data=b"\0\xa4\0\0")
    assert reply[-2:] == bytes.fromhex("9000")
    assert honest.rv(Command.END, card, 0, 0) == 0
    assert honest.rv(Command.DISCONNECT, card, 0, 0) == 0
    assert honest.rv(Command.RELEASE, honest.context, 0) == 0
    honest.hang_up()


def new_server(lends: bool = False) -> Server:
    server = Server(FakeSlot(), FakeSlot(), lends=lends)
    server.world.plug(FakeSlot(), base="Honest")
    return server


def test_random_messages(full: bool, tell: Tell) -> None:
    """Whatever a client says, the others are served, and it leaves nothing behind."""
    count = FULL if full else SMALL
    for seed in range(count // ROUND):
        chance, server = random.Random(seed), new_server(lends=bool(seed % 2))
        try:
            for step in range(ROUND):
                while len(server.clients) < 4:
                    server.client(None).say(request(Command.ESTABLISH, bytes(12)))
                client = chance.choice(server.clients)
                client.say(message(chance, known_numbers(server)))
                if chance.random() < 0.9:
                    client.take()
                if chance.random() < 0.02:
                    client.hang_up()
                if chance.random() < 0.05:
                    server.sleep(chance.random())
                if not step % 50:
                    an_honest_client_is_served(server)
                locks_are_held_by_those_that_live(server)
            for client in list(server.clients):
                client.hang_up()
            nothing_is_left(server)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    tell(f"PC/SC service: {count} random messages cost nobody but who sent them")


class Worker:
    """A client that follows the protocol, and may be at anything when it dies.

    Attributes:
        client: Its connection.
        awaited: Bytes that the reply to its last request has at least; 0 for none under way.
    """

    def __init__(self, server: Server, chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self.client: Client = server.client(chance.randrange(3, 7))
        self.client.establish()
        self.cards: list[int] = []
        self.awaited = 0
        self.command = Command.STATUS

    def step(self, jobs: int) -> None:
        """Say the next thing, if the last one was answered."""
        if self.awaited:
            self.listen()
            return
        chance = self.chance
        if not self.cards or chance.random() < 0.1:
            name = chance.choice(("Reader 00 00", "Reader 01 00"))
            share = chance.choice((1, 2, 2, 2, 3))
            body = connect_body(self.client.context, name, share)
            self.command, self.awaited = Command.CONNECT, 152
            self.client.say(request(Command.CONNECT, body), jobs)
        else:
            self.use(chance.choice(self.cards), jobs)
        self.listen()

    def use(self, card: int, jobs: int) -> None:
        chance = self.chance
        fields = {
            Command.RECONNECT: (card, chance.randrange(1, 4), 3, chance.randrange(3), 0, 0),
            Command.BEGIN: (card, 0),
            Command.END: (card, chance.randrange(4), 0),
            Command.STATUS: (card, 0),
            Command.DISCONNECT: (card, chance.randrange(4), 0),
            Command.TRANSMIT: (card, 2, 16, 4, 3, 16, 300, 0),
        }
        self.command = chance.choice(list(fields))
        body = struct.pack(f"={len(fields[self.command])}I", *fields[self.command])
        self.awaited = len(body)
        data = b"\0\xa4\0\0" if self.command is Command.TRANSMIT else b""
        self.client.say(request(self.command, body, data), jobs)
        self.card = card

    def listen(self) -> None:
        """Take the reply, if it has come."""
        reply = self.client.take()
        if not reply:
            return
        at = 144 if self.command is Command.CONNECT else self.awaited - 4
        head = reply[: self.awaited]
        rv = ScardCode(struct.unpack("=I", head[-4:])[0])
        assert rv is not ScardCode.F_INTERNAL_ERROR
        if self.command is Command.TRANSMIT and rv is ScardCode.S_SUCCESS:
            assert reply[self.awaited :] == bytes.fromhex("9000")
        else:
            assert len(reply) == self.awaited, at
        if self.command is Command.CONNECT and rv is ScardCode.S_SUCCESS:
            self.cards.append(struct.unpack_from("=I", head, 140)[0])
        if self.command is Command.DISCONNECT and rv is ScardCode.S_SUCCESS:
            self.cards.remove(self.card)
        self.awaited = 0


def test_random_interleavings(full: bool, tell: Tell) -> None:
    """Clients come, work, wait for each other and die, while drivers are slow, cards come and go,
    and readers too. Nobody is forgotten, and nothing is left behind."""
    count = FULL if full else SMALL
    for seed in range(count // ROUND):
        chance = random.Random(seed)
        server, workers = new_server(lends=bool(seed % 2)), list[Worker]()
        try:
            for _ in range(ROUND):
                one_step(chance, server, workers)
                locks_are_held_by_those_that_live(server)
            all_are_served(server, workers)
            for worker in workers:
                worker.client.hang_up()
            server.settle()
            nothing_is_left(server)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    tell(f"PC/SC service: {count} steps of random interleavings leave nothing behind")


def one_step(chance: random.Random, server: Server, workers: list[Worker]) -> None:
    jobs = chance.randrange(3)
    choice = chance.random()
    server.world.is_held = True
    if len(workers) < MAX_CLIENTS and (not workers or choice < 0.08):
        server.settle()
        workers.append(Worker(server, chance))
    elif choice < 0.12:
        workers.pop(chance.randrange(len(workers))).client.hang_up()
    elif choice < 0.16:
        fake = server.world.fake
        if fake.atr is None:
            server.world.put_in()
        else:
            chance.choice((server.world.take_out, fake.exchange, fake.lose_power))()
            server.world.look()
    elif choice < 0.165 and not server.world.readers[0].is_gone:
        server.world.unplug()
    elif choice < 0.25:
        server.settle(jobs)
    elif choice < 0.3:
        server.sleep(chance.random())
    else:
        chance.choice(workers).step(jobs)


def all_are_served(server: Server, workers: list[Worker]) -> None:
    """Once those that hold something are gone, those that wait go on."""
    while workers:
        server.settle()
        server.sleep(0.3)
        for worker in workers:
            worker.listen()
        waiting = [worker for worker in workers if worker.awaited]
        if not waiting:
            return
        idle = [worker for worker in workers if not worker.awaited]
        assert idle, "all wait for each other"
        idle[0].client.hang_up()
        workers.remove(idle[0])


@pytest.mark.parametrize("count", [1000])
def test_many_connections(count: int) -> None:
    """A client with a thousand connections keeps nobody from the card."""
    server = new_server()
    many = [server.client() for _ in range(count)]
    for one in many:
        one.establish()
        one.say(request(Command.WAIT))
    an_honest_client_is_served(server)
    for one in many:
        one.hang_up()
    nothing_is_left(server)
