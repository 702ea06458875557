"""Clients that are lent while they send APDUs, without a thread: they are answered as they would be
otherwise, byte for byte."""

from __future__ import annotations

import random
import struct

import pytest

from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service.client_messages import MAX_DATA, BadRequest, Command
from ccid.pcsc.service.lent_session import LentSession
from tests.conftest import Tell
from tests.unit.fake_pcsc import FakeSlot
from tests.unit.pcsc_clients import Client, Server, connect_body, request, transmit_body
from tests.unit.test_pcsc_hostile import known_numbers, message

SMALL, FULL = 3_000, 100_000
ROUND = 150
APDU = b"\0\xa4\0\0"


def lending(*slots: FakeSlot) -> tuple[Server, Client, int]:
    """A server, a client, its handle."""
    server = Server(*slots, lends=True)
    client = server.client()
    client.establish()
    return server, client, client.connect()


def transmit(card: int, apdu: bytes = APDU, **how: int) -> bytes:
    return request(Command.TRANSMIT, transmit_body(card, len(apdu), **how), apdu)


def rv(reply: bytes) -> int:
    return int(struct.unpack_from("=I", reply, 28)[0])


# One after the other ------------------------------------------------------------------------------


def test_apdus_are_carried_out_while_it_is_lent() -> None:
    server, client, card = lending()
    for _ in range(3):
        client.say(transmit(card))
        reply = client.take()
        assert reply[:32] == struct.pack("=8I", card, 2, 16, 4, 1, 16, 2, 0)
        assert reply[32:] == bytes.fromhex("9000")
    assert server.lent == 1
    assert client.session.is_lent


def test_anything_else_ends_it() -> None:
    server, client, card = lending()
    client.say(transmit(card))
    client.take()
    assert client.rv(Command.STATUS, card, 0) == 0
    assert not client.session.is_lent
    client.say(transmit(card))
    assert rv(client.take()) == 0
    assert server.lent == 2


def test_requests_that_do_not_wait_for_their_replies() -> None:
    """Their order is kept, and so is that of the replies."""
    _, client, card = lending()
    status = request(Command.STATUS, struct.pack("=II", card, 0))
    client.say(transmit(card) + transmit(card) + status + transmit(card))
    told = client.take()
    assert [told[at : at + 34][-2:] for at in (0, 34, 76)] == [bytes.fromhex("9000")] * 3
    assert told[68:76] == struct.pack("=II", card, 0)


def test_half_messages() -> None:
    _, client, card = lending()
    client.say(transmit(card))
    client.take()
    whole = transmit(card) + request(Command.STATUS, struct.pack("=II", card, 0))
    for at in range(len(whole) - 1):
        client.say(whole[at : at + 1])
    assert rv(client.take()) == 0
    assert not client.session.is_lent
    client.say(whole[-1:])
    assert client.take() == struct.pack("=II", card, 0)


def test_a_half_message_and_nothing_more_for_a_while() -> None:
    server, client, card = lending()
    client.say(transmit(card))
    client.take()
    client.say(transmit(card)[:20])
    server.sleep(0.3)
    assert not client.session.is_lent
    client.say(transmit(card)[20:])
    assert rv(client.take()) == 0


def test_too_much_data_ends_the_client() -> None:
    server, client, card = lending()
    client.say(transmit(card))
    client.take()
    client.say(request(Command.TRANSMIT, transmit_body(card, MAX_DATA + 1)))
    assert client not in server.clients
    assert not server.core.resources.handles


def test_a_reply_that_was_not_taken_whole() -> None:
    _, client, card = lending()
    client.say(transmit(card), jobs=0)
    lent: LentSession[None] = LentSession(lambda *_: None)
    client.session.came_back(lent, b"rest")  # type: ignore[arg-type]
    assert client.take() == b"rest"


def test_nothing_that_is_no_request_gets_through() -> None:
    _, client, card = lending()
    client.say(transmit(card), jobs=0)
    lent: LentSession[None] = LentSession(lambda *_: None, unheard=b"\xff" * 8)
    with pytest.raises(BadRequest):
        client.session.came_back(lent, b"")  # type: ignore[arg-type]


def test_who_sends_apdus_in_transactions_is_lent_when_one_begins() -> None:
    server, client, card = lending()

    def a_transaction(*, is_lent: bool) -> None:
        assert client.rv(Command.BEGIN, card, 0) == 0
        assert client.session.is_lent == is_lent
        client.say(transmit(card))
        assert rv(client.take()) == 0
        assert client.rv(Command.END, card, 0, 0) == 0
        assert not client.session.is_lent

    a_transaction(is_lent=False)
    a_transaction(is_lent=True)
    a_transaction(is_lent=True)
    assert server.lent == 3
    assert client.rv(Command.BEGIN, card, 0) == 0
    assert client.session.is_lent
    assert client.rv(Command.STATUS, card, 0) == 0
    assert client.rv(Command.END, card, 0, 0) == 0
    a_transaction(is_lent=False)  # the last one began with something else
    a_transaction(is_lent=True)


def test_what_is_said_before_the_reply_is_no_reason_to_be_lent() -> None:
    _, client, card = lending()
    begin, end = struct.pack("=II", card, 0), struct.pack("=III", card, 0, 0)
    for _ in range(3):
        client.say(request(Command.BEGIN, begin) + transmit(card) + request(Command.END, end))
        assert len(client.take()) == 8 + 34 + 12
        assert not client.session.is_lent


# What happens meanwhile ---------------------------------------------------------------------------


def test_a_transaction_of_another_begins_between_two() -> None:
    server, client, card = lending()
    other = server.client()
    other.establish()
    its = other.connect()
    client.say(transmit(card))
    client.take()
    assert other.rv(Command.BEGIN, its, 0) == 0
    client.say(transmit(card))
    assert client.take() == b""  # it waits
    assert not client.session.is_lent
    other.say(transmit(its))
    assert rv(other.take()) == 0
    assert other.rv(Command.END, its, 0, 0) == 0
    assert rv(client.take()) == 0


def test_a_transaction_that_lasts() -> None:
    server, client, card = lending()
    other = server.client()
    other.establish()
    assert other.rv(Command.BEGIN, other.connect(), 0) == 0
    client.say(transmit(card))
    server.sleep(0.3)
    assert rv(client.take()) == ScardCode.E_SHARING_VIOLATION


@pytest.mark.parametrize("is_told", [True, False])
def test_a_card_that_is_taken_out(is_told: bool) -> None:
    """Whether or not the reader said so before the next APDU."""
    server, client, card = lending()
    client.say(transmit(card))
    client.take()
    assert client.session.is_lent
    server.world.fake.take_out()
    if is_told:
        server.world.look()
    client.say(transmit(card))
    wanted = ScardCode.W_REMOVED_CARD if is_told else ScardCode.E_NO_SMARTCARD
    assert rv(client.take()) == wanted
    client.say(transmit(card))
    assert rv(client.take()) == ScardCode.W_REMOVED_CARD


def test_a_card_that_is_reset_by_another() -> None:
    server, client, card = lending()
    other = server.client()
    other.establish()
    its = other.connect()
    client.say(transmit(card))
    client.take()
    assert other.rv(Command.RECONNECT, its, 2, 3, 1, 0, 0) == 0
    client.say(transmit(card))
    assert rv(client.take()) == ScardCode.W_RESET_CARD


def test_a_reader_that_leaves() -> None:
    server, client, card = lending()
    client.say(transmit(card))
    client.take()
    server.world.unplug()
    client.say(transmit(card))
    assert rv(client.take()) == ScardCode.E_INVALID_VALUE


def test_a_cancellation_from_another_connection() -> None:
    """It counts for the wait that begins next, as always."""
    server, client, card = lending()
    other = server.client()
    client.say(transmit(card))
    client.take()
    assert other.rv(Command.CANCEL, client.context, 0) == 0
    assert client.session.is_lent
    client.say(request(Command.WAIT))
    assert client.take()[-8:] == struct.pack("=II", 0, ScardCode.E_CANCELLED)


def test_a_client_that_dies() -> None:
    server, client, card = lending()
    client.say(transmit(card), jobs=0)
    assert client.session.is_lent
    client.hang_up()
    assert not server.core.resources.handles
    other = server.client()
    other.establish()
    other.connect(share=1)


# The same as otherwise ----------------------------------------------------------------------------


def same(one: Server, other: Server) -> bool:
    """Nothing tells that clients of one were lent."""
    lasting = [
        (slot.view, slot.lock_count, sorted(handle.number for handle in slot.handles))
        for server in (one, other)
        for slot in server.core.resources.slots
        if slot is not None
    ]
    half = len(lasting) // 2
    return lasting[:half] == lasting[half:]


def test_what_is_answered_is_the_same(full: bool, tell: Tell) -> None:
    """Random messages, in random pieces, to a server that lends and to one that does not."""
    count, lent = FULL if full else SMALL, 0
    for seed in range(count // ROUND):
        chance = random.Random(seed)
        plain, lends = (Server(FakeSlot(), FakeSlot(), lends=how) for how in (False, True))
        pairs: list[tuple[Client, Client]] = []
        cards: dict[int, int] = {}
        try:
            for _ in range(ROUND):
                one_step(chance, plain, lends, pairs, cards)
                assert same(plain, lends)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        lent += lends.lent
    assert lent > count // 40
    tell(f"PC/SC service: {count} messages are answered the same, {lent} times by a lent client")


def one_step(
    chance: random.Random,
    plain: Server,
    lends: Server,
    pairs: list[tuple[Client, Client]],
    cards: dict[int, int],
) -> None:
    servers, what = (plain, lends), chance.random()
    if len(pairs) < 3:
        pair = (plain.client(), lends.client())
        assert pair[0].establish() == pair[1].establish()
        pairs.append(pair)
        body = connect_body(pair[0].context, "Reader 00 00", 2)
        replies = [client.ask(Command.CONNECT, body=body) for client in pair]
        assert replies[0] == replies[1]
        if len(replies[0]) == 152 and not struct.unpack("=I", replies[0][148:])[0]:
            cards[len(cards)] = struct.unpack_from("=I", replies[0], 140)[0]
    elif what < 0.03:
        act = chance.choice(("take_out", "put_in", "exchange", "lose_power"))
        for server in servers:
            getattr(server.world.fake, act)()
            server.world.look()
            server.settle()
    elif what < 0.06:
        for server in servers:
            server.sleep(0.3)
    elif what < 0.1:
        for client in pairs.pop(chance.randrange(len(pairs))):
            client.hang_up()
    else:
        data = said(chance, plain, cards)
        cut = chance.randrange(len(data) + 1) if chance.random() < 0.3 else 0
        pair = chance.choice(pairs)
        for part in (data[:cut], data[cut:]):
            for client in pair:
                client.say(part)
    for pair in list(pairs):
        assert pair[0].take() == pair[1].take()
        assert (pair[0] in plain.clients) == (pair[1] in lends.clients)
        if pair[0] not in plain.clients:
            pairs.remove(pair)


def said(chance: random.Random, server: Server, cards: dict[int, int]) -> bytes:
    """A few TRANSMITs at once, mostly; or any message."""
    if not cards or chance.random() < 0.1:
        return message(chance, known_numbers(server))
    card = cards[chance.randrange(max(0, len(cards) - 3), len(cards))]
    parts = [
        transmit(
            card,
            chance.randbytes(chance.choice((4, 5, 261))),
            protocol=chance.choice((2, 2, 2, 2, 1, 4, 0)),
            room=chance.choice((300, 300, 300, 1)),
        )
        for _ in range(chance.choice((1, 1, 1, 2, 3)))
    ]
    if chance.random() < 0.1:
        command, more = chance.choice(((Command.BEGIN, ()), (Command.END, (0,))))
        parts.append(request(command, struct.pack(f"={2 + len(more)}I", card, *more, 0)))
    return b"".join(parts)
