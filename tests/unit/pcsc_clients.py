"""Clients of the PC/SC service without sockets: sessions, on a core whose time is the test's."""

from __future__ import annotations

import struct

from ccid.pcsc.manager.card_calls import may_transmit_now
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, DoneByCaller, Job
from ccid.pcsc.manager.pcsc_state import Handle
from ccid.pcsc.manager.scard_codes import Proto
from ccid.pcsc.numbers.ifd_numbers import Code
from ccid.pcsc.service.client_messages import BadRequest, Command
from ccid.pcsc.service.client_session import ClientSession
from ccid.pcsc.service.lent_session import LentSession
from tests.unit.fake_pcsc import FakeSlot, World

U32 = struct.Struct("=I")
ENTRIES = 16
ARRAY_SIZE = ENTRIES * 184


class Server:
    """A world with clients.

    Attributes:
        world: The core and its readers.
        clients: Those that are connected.
        lends: Clients that send APDUs are lent.
        lent: How many were.
    """

    def __init__(self, *slots: FakeSlot, lends: bool = False) -> None:
        self.lends, self.lent = lends, 0
        self.world = World(*slots)
        self.core = self.world.core
        self.functions = self.world.functions
        self.clients: list[Client] = []

    def begin(self, call: Call) -> None:
        self.core.begin(call, self.world.now)

    def now(self) -> float:
        return self.world.now

    def settle(self, jobs: int | None = None) -> None:
        """Do what there is to do, but no more than so many jobs."""
        if jobs != 0:
            for client in list(self.clients):
                client.go_on_lent()
        while self.core.ended or (self.core.jobs and jobs != 0):
            if self.core.ended:
                self.core.ended.popleft().finished()
                continue
            call, job = self.core.jobs.popleft()
            outcome = self.world.driver(job.slot).do(job)
            self.core.finished(call, job, outcome, self.world.now)
            jobs = None if jobs is None else jobs - 1

    def client(self, minor: int | None = 4) -> Client:
        """One more client, with its version said."""
        made = Client(self)
        self.clients.append(made)
        if minor is not None:
            assert made.ask(Command.VERSION, 4, minor, 0)[:8] == struct.pack("=II", 4, minor)
        return made

    def sleep(self, seconds: float) -> None:
        """Time passes: who is lent and says nothing is so no more."""
        until = self.world.now + seconds
        for client in list(self.clients):
            client.come_back()
        self.settle()
        while (due := self.core.next_time) is not None and due <= until:
            self.world.now = max(due, self.world.now)
            self.core.time_passed(self.world.now)
            self.settle()
        self.world.now = until


class Client:
    """A client.

    Attributes:
        session: What the service has of it.
        context: Its context, or 0.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session = ClientSession(server, self, "a client", ENTRIES)
        self.context = 0
        self._lent: LentSession[DoneByCaller] | None = None
        self._heard, self._got = b"", b""

    # What a session needs of its connection -----------------------------------------------------

    def has_news(self) -> None:
        """The test looks for itself."""

    def may_establish(self) -> bool:
        return True

    def may_cancel(self, context: int) -> bool:
        sessions = [client.session for client in self.server.clients]
        return any(s.context is not None and s.context.number == context for s in sessions)

    def lend(self, number: int, protocol: int, request: bytes) -> bool:
        handle = self._free_handle(number, protocol)
        if not self.server.lends or handle is None:
            return False
        self.server.lent += 1
        self._lent, self._heard = LentSession(self._transmit), request
        return True

    # While it is lent ---------------------------------------------------------------------------

    def _free_handle(self, number: int, protocol: int) -> Handle | None:
        """The handle, if nothing keeps it waiting."""
        handle = self.server.core.resources.handles.get(number)
        if handle is None or handle.context is not self.session.context:
            return None
        return handle if may_transmit_now(handle, protocol) else None

    def _transmit(
        self, number: int, protocol: int, apdu: bytes
    ) -> tuple[bytes, int] | DoneByCaller | None:
        """As the engine does it."""
        handle = self._free_handle(number, protocol)
        if handle is None or len(apdu) > 65548:
            return None
        slot, kind = handle.slot, 1 if handle.slot.protocol is Proto.T1 else 0
        job, card = Job(slot, Action.TRANSMIT, kind, apdu), slot.card_number
        arrivals = slot.arrivals
        outcome = self.server.world.driver(slot).do(job)
        if outcome.code is Code.SUCCESS and outcome.seen == CardSeen(True, arrivals):
            return outcome.data, kind
        return DoneByCaller(job, card, outcome)

    def go_on_lent(self) -> None:
        """What was said while it is lent is heard."""
        data, self._heard = self._heard, b""
        while self._lent is not None:
            reply = self._lent.received(data)
            self._got, data = self._got + reply, b""
            if self._lent.is_over:
                self.come_back()
            elif not reply or not self._lent.unheard:
                return

    def come_back(self) -> None:
        """It is lent no more."""
        lent, self._lent = self._lent, None
        if lent is None:
            return
        heard, self._heard = self._heard, b""
        try:
            self.session.came_back(lent, b"")
            if heard and self._lent is None:
                self.session.received(heard)
            else:
                self._heard += heard
        except BadRequest as error:
            self.session.refuse(error)
        if self.session.is_over:
            self.hang_up()

    # What a client does -------------------------------------------------------------------------

    def say(self, data: bytes, jobs: int | None = None) -> None:
        """Send bytes; what is no request ends the client."""
        if self._lent is None:
            self._hear(data)
        else:
            self._heard += data
        self.server.settle(jobs)
        if self.session.is_over:
            self.hang_up()

    def _hear(self, data: bytes) -> None:
        try:
            self.session.received(data)
        except BadRequest as error:
            self.session.refuse(error)

    def hang_up(self) -> None:
        """Go."""
        self._lent = None
        self.session.close()
        self.server.settle()
        if self in self.server.clients:
            self.server.clients.remove(self)

    def take(self) -> bytes:
        """What the service has sent."""
        data, self._got = self._got + bytes(self.session.out), b""
        self.session.out.clear()
        try:
            self.session.go_on()
        except BadRequest as error:
            self.session.refuse(error)
        if not self.session.out:
            self.session.all_sent()
        return data

    def ask(self, command: Command, *fields: int, data: bytes = b"", body: bytes = b"") -> bytes:
        """Send a request of numbers, or with this body; returns what comes."""
        body = body or b"".join(U32.pack(field) for field in fields)
        self.say(request(command, body, data))
        return self.take()

    def rv(self, command: Command, *fields: int, data: bytes = b"") -> int:
        """The same; returns the last number of the reply."""
        reply = self.ask(command, *fields, data=data)
        return int(U32.unpack(reply[-4:])[0])

    def establish(self) -> int:
        """Have a context."""
        _, self.context, rv = struct.unpack("=III", self.ask(Command.ESTABLISH, 2, 0, 0))
        assert rv == 0
        return self.context

    def connect(self, share: int = 2, name: str = "Reader 00 00", protocols: int = 3) -> int:
        """Connect; returns the handle."""
        reply = self.ask(Command.CONNECT, body=connect_body(self.context, name, share, protocols))
        number, _, rv = struct.unpack("=III", reply[140:])
        assert rv == 0, hex(rv)
        return int(number)


def request(command: int, body: bytes = b"", data: bytes = b"") -> bytes:
    """A request."""
    return struct.pack("=II", len(body), command) + body + data


def connect_body(context: int, name: str, share: int, protocols: int = 3) -> bytes:
    """The body of CONNECT."""
    return struct.pack("=I128sIIIII", context, name.encode(), share, protocols, 0, 0, 0)


def transmit_body(handle: int, length: int, protocol: int = 2, room: int = 300) -> bytes:
    """The body of TRANSMIT."""
    return struct.pack("=8I", handle, protocol, 16, length, 3, 16, room, 0)
