"""pyscard's monitors and card request in process, while cards come and go; prints what they say."""

from __future__ import annotations

import queue
import threading
from typing import Any

import ccid
from ccid.pcsc import under_pyscard
from ccid.virtual.cards import EchoCard

first, second = ccid.VirtualReader(None, name="First"), ccid.VirtualReader(EchoCard(), name="Other")
under_pyscard([first, second])

from smartcard.CardMonitoring import CardMonitor, CardObserver  # noqa: E402
from smartcard.CardRequest import CardRequest  # noqa: E402
from smartcard.CardType import AnyCardType  # noqa: E402
from smartcard.Exceptions import CardRequestTimeoutException, NoCardException  # noqa: E402
from smartcard.ReaderMonitoring import ReaderMonitor, ReaderObserver  # noqa: E402
from smartcard.System import readers  # noqa: E402
from smartcard.util import toHexString  # noqa: E402

told: queue.SimpleQueue[str] = queue.SimpleQueue()


class Cards(CardObserver):  # type: ignore[misc]
    """Tells of cards."""

    def update(self, observable: Any, actions: Any) -> None:
        for sign, cards in zip("+-", actions, strict=True):
            for card in cards:
                told.put(f"{sign} {str(card.reader).split(' (')[0]}: {toHexString(card.atr)}")


class Readers(ReaderObserver):  # type: ignore[misc]
    """Tells of readers."""

    def update(self, observable: Any, actions: Any) -> None:
        for sign, them in zip("+-", actions, strict=True):
            for reader in them:
                told.put(f"{sign} {str(reader).split(' (')[0]}")


def next_told() -> None:
    print(told.get(timeout=20), flush=True)


cards, observer = CardMonitor(), Cards()
cards.addObserver(observer)
next_told()
first.insert(EchoCard(bytes.fromhex("3B00")))
next_told()
first.remove()
next_told()
cards.deleteObserver(observer)

connection = next(r for r in readers() if "First" in str(r)).createConnection()
try:
    connection.connect()
except NoCardException as error:
    print(type(error).__name__)

empty = [r for r in readers() if "First" in str(r)]
try:
    CardRequest(timeout=0.2, readers=empty, cardType=AnyCardType()).waitforcard()
except CardRequestTimeoutException as error:
    print(type(error).__name__)
late = threading.Timer(0.3, first.insert, [EchoCard()])
late.start()
service = CardRequest(timeout=20, readers=empty, cardType=AnyCardType(), newcardonly=True)
with_card = service.waitforcard()
with_card.connection.connect()
print(with_card.connection.transmit([0, 0x52, 0x12, 0x34]))
with_card.connection.disconnect()

monitor, watcher = ReaderMonitor(period=0.1), Readers()
monitor.addObserver(watcher)
next_told()
next_told()
second.unplug()
next_told()
monitor.deleteObserver(watcher)
