"""Virtual cards: applications that take command APDUs and give response APDUs.

``base`` is what a card is, ``t0`` how one speaks T=0, ``test_card`` answers on request with
whatever a test needs, ``file_system`` is a card after ISO/IEC 7816-4.
"""

from ccid.virtual.cards.base import Answer, Application
from ccid.virtual.cards.file_system import FileSystemCard
from ccid.virtual.cards.test_card import EchoCard

__all__ = ["Answer", "Application", "EchoCard", "FileSystemCard"]
