"""placeholder"""

from ccid.virtual.cards.test_card import EchoCard


class FileSystemCard(EchoCard):
    pass
