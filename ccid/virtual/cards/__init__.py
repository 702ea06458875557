"""Virtual cards: applications that take command APDUs and give response APDUs.

``base`` is what a card is, ``test_card`` answers on request with whatever a test needs,
``file_system`` is a card after ISO/IEC 7816-4.

``contact`` puts one on contacts, character by character: ``pps`` and the protocols in ``t0_line``
with ``t0``, and ``t1`` with ``t1_blocks``; ``line`` is what passes there and when,
``contact_faults`` what it does wrong.
"""

from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.contact import Contact, ContactOptions
from ccid.virtual.cards.echo_card import EchoCard
from ccid.virtual.cards.file_system import FileSystemCard

__all__ = ["Answer", "Application", "Contact", "ContactOptions", "EchoCard", "FileSystemCard"]
