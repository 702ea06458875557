"""MIFARE Classic 1K and 4K: sectors with two keys, access conditions, and value blocks. Pure.

The memory map and the access conditions are those of NXP's data sheets MF1S50YYX and MF1S70YYX,
8.6 and 8.7. The cipher on the air (CRYPTO1) is not there: a reader does it, and the host sees
whether a key was right.
"""

from __future__ import annotations

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer
from ccid.virtual.cards.interindustry import Refused
from ccid.virtual.cards.picc import (
    NO_ADDRESS,
    NO_INFORMATION,
    NO_SUCH_KEY_TYPE,
    NOT_SATISFIED,
    WRONG_LENGTH,
    PseudoIns,
    StoragePicc,
    storage_atr,
)

BLOCK = 16
KEY_A, KEY_B = 0x60, 0x61
FACTORY_KEY = bytes.fromhex("FFFFFFFFFFFF")
FACTORY_ACCESS = bytes.fromhex("FF078069")
"""Access bits of a new card: data blocks free with both keys, key A writes the trailer."""
SMALL_SECTORS, SMALL, LARGE = 32, 4, 16
"""The first 32 sectors have 4 blocks, the 8 sectors of the 4K after them have 16."""
STORE, INCREMENT, DECREMENT, RESTORE = range(4)
"""First byte of the data of FF D7, the value block operation of ACS readers."""

A, B, AB, NEVER = "A", "B", "AB", ""
READ, WRITE, UP, DOWN = range(4)
OF_DATA = (
    (AB, AB, AB, AB),  # C1 C2 C3 = 000
    (AB, NEVER, NEVER, AB),  # 001
    (AB, NEVER, NEVER, NEVER),  # 010
    (B, B, NEVER, NEVER),  # 011
    (AB, B, NEVER, NEVER),  # 100
    (B, NEVER, NEVER, NEVER),  # 101
    (AB, B, B, AB),  # 110
    (NEVER, NEVER, NEVER, NEVER),  # 111
)
"""Which keys may read, write, increment, and decrement, transfer or restore a data block, by C1 C2
C3 (MF1S50YYX, table 8)."""
WRITE_A, READ_BITS, WRITE_BITS, READ_B, WRITE_B = range(5)
OF_TRAILER = (
    (A, A, NEVER, A, A),
    (A, A, A, A, A),
    (NEVER, A, NEVER, A, NEVER),
    (B, AB, B, NEVER, B),
    (B, AB, NEVER, NEVER, B),
    (NEVER, AB, B, NEVER, NEVER),
    (NEVER, AB, NEVER, NEVER, NEVER),
    (NEVER, AB, NEVER, NEVER, NEVER),
)
"""Which keys may write key A, read and write the access bits, read and write key B, by C1 C2 C3
(MF1S50YYX, table 7)."""


def access_bits(trailer: bytes) -> tuple[int, int, int, int] | None:
    """C1 C2 C3 of the four groups of blocks in a sector; None if their two copies differ."""
    b6, b7, b8 = trailer[6:9]
    c1, c2, c3 = b7 >> 4, b8 & 0x0F, b8 >> 4
    if (b6 & 0x0F, b6 >> 4, b7 & 0x0F) != (c1 ^ 0x0F, c2 ^ 0x0F, c3 ^ 0x0F):
        return None
    groups = [(c1 >> i & 1) << 2 | (c2 >> i & 1) << 1 | (c3 >> i & 1) for i in range(4)]
    return groups[0], groups[1], groups[2], groups[3]


class MifareClassic(StoragePicc):
    """A MIFARE Classic card.

    Args:
        blocks: 64 for 1K, 256 for 4K.
        uid: The UID, 4 bytes.

    Attributes:
        memory: All blocks, in order. Block 0 holds UID and data of the manufacturer.
    """

    def __init__(self, blocks: int = 64, uid: bytes = bytes.fromhex("DEADBEEF")) -> None:
        super().__init__(uid, storage_atr(0x03, 0x0001 if blocks == 64 else 0x0002))
        self.memory = bytearray(blocks * BLOCK)
        check = uid[0] ^ uid[1] ^ uid[2] ^ uid[3]
        sak, atqa = (0x08, b"\x04\x00") if blocks == 64 else (0x18, b"\x02\x00")
        self.memory[:BLOCK] = uid + bytes((check, sak)) + atqa + bytes.fromhex("6263646566676869")
        for block in range(blocks):
            if self._trailer(block) == block:
                self._put(block, FACTORY_KEY + FACTORY_ACCESS + FACTORY_KEY)
        self._open: tuple[int, str] | None = None
        """The trailer of the sector that is authenticated, and the key; None for none."""

    def reset(self) -> None:
        """The card forgets the authentication; the reader keeps its keys."""
        super().reset()
        self._open = None

    # Places -----------------------------------------------------------------------------------

    def _trailer(self, block: int) -> int:
        """The last block of the sector of ``block``: the sector trailer."""
        size = SMALL if block < SMALL_SECTORS * SMALL else LARGE
        return block // size * size + size - 1

    def _group(self, block: int) -> int:
        """Which of the four groups of access bits is for ``block``."""
        trailer = self._trailer(block)
        if block == trailer:
            return 3
        if block < SMALL_SECTORS * SMALL:
            return block % SMALL
        return block % LARGE // 5

    def _block(self, block: int) -> bytes:
        return bytes(self.memory[block * BLOCK : (block + 1) * BLOCK])

    def _put(self, block: int, data: bytes) -> None:
        self.memory[block * BLOCK : (block + 1) * BLOCK] = data

    # Rights -----------------------------------------------------------------------------------

    def authenticate(self, address: int, kind: int, key: bytes) -> None:
        """Open the sector of a block with key A (60) or B (61)."""
        self._open = None
        self._check_there(address)
        if kind not in (KEY_A, KEY_B):
            raise Refused(NO_SUCH_KEY_TYPE)
        trailer = self._trailer(address)
        content = self._block(trailer)
        right = content[:6] if kind == KEY_A else content[10:]
        if key != right:
            raise Refused(NO_INFORMATION)
        self._open = trailer, A if kind == KEY_A else B

    def _key_b_is_readable(self, trailer: int) -> bool:
        """A key B that can be read is data: the card accepts it, and then refuses everything
        (MF1S50YYX, 8.7.3)."""
        bits = access_bits(self._block(trailer))
        return bits is not None and OF_TRAILER[bits[3]][READ_B] == A

    def _check_there(self, address: int) -> None:
        if (address + 1) * BLOCK > len(self.memory):
            raise Refused(NO_ADDRESS)

    def _key_of(self, block: int) -> tuple[str, int]:
        """The key with which the sector of ``block`` is open, and C1 C2 C3 of the block.

        Raises:
            Refused: The sector is not open; or there is no such block.
        """
        self._check_there(block)
        trailer = self._trailer(block)
        bits = access_bits(self._block(trailer))
        is_open = self._open is not None and self._open[0] == trailer
        if (
            not is_open
            or bits is None
            or (self._open == (trailer, B) and self._key_b_is_readable(trailer))
        ):
            self._open = None
            raise Refused(NOT_SATISFIED)
        assert self._open is not None
        return self._open[1], bits[self._group(block)]

    def _allow(self, block: int, act: int) -> None:
        """Raise Refused unless a data block may be read, written, increased or decreased."""
        key, bits = self._key_of(block)
        if key not in OF_DATA[bits][act]:
            self._open = None  # a card that refuses is halted, and forgets the authentication
            raise Refused(NOT_SATISFIED)

    # Reading and writing ----------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Whole blocks of one sector, without trailers that are not asked for alone."""
        count = 1 if length == 256 else length // BLOCK
        if count < 1 or (length % BLOCK and length != 256):
            raise Refused(WRONG_LENGTH)
        return b"".join(self._read(block) for block in range(address, address + count))

    def _read(self, block: int) -> bytes:
        if self._trailer(block) != block:
            self._allow(block, READ)
            return self._block(block)
        key, bits = self._key_of(block)
        rights, content = OF_TRAILER[bits], self._block(block)
        access = content[6:10] if key in rights[READ_BITS] else bytes(4)
        key_b = content[10:] if key in rights[READ_B] else bytes(6)
        return bytes(6) + access + key_b

    def update(self, address: int, data: bytes) -> None:
        """Write one block."""
        if len(data) != BLOCK:
            raise Refused(WRONG_LENGTH)
        if self._trailer(address) != address:
            self._allow(address, WRITE)
            if address == 0:  # the manufacturer's block is written once, in the factory
                raise Refused(NOT_SATISFIED)
            self._put(address, data)
            return
        key, bits = self._key_of(address)
        rights, old = OF_TRAILER[bits], self._block(address)
        if not any(key in rights[act] for act in (WRITE_A, WRITE_BITS, WRITE_B)):
            raise Refused(NOT_SATISFIED)
        key_a = data[:6] if key in rights[WRITE_A] else old[:6]
        access = data[6:10] if key in rights[WRITE_BITS] else old[6:10]
        key_b = data[10:] if key in rights[WRITE_B] else old[10:]
        self._put(address, key_a + access + key_b)

    # Value blocks -----------------------------------------------------------------------------

    def special(self, command: CommandApdu) -> Answer:
        """Value blocks, by the pseudo-APDUs FF D7 and FF B1 of ACS readers (ACR122U API, 5.5)."""
        block = command.p2
        if command.ins == PseudoIns.READ_VALUE:
            self._allow(block, READ)
            return Answer(self._value(block).to_bytes(4, "big", signed=True))
        if command.ins != PseudoIns.VALUE or not command.data:
            return super().special(command)
        act, rest = command.data[0], command.data[1:]
        if len(rest) != (1 if act == RESTORE else 4):
            raise Refused(WRONG_LENGTH)
        if act == RESTORE:
            self._allow(block, DOWN)
            self._allow(rest[0], DOWN)
            self._put(rest[0], value_block(self._value(block), rest[0]))
            return Answer()
        number = int.from_bytes(rest, "big", signed=True)
        if act == STORE:
            self._allow(block, WRITE)
        elif act in (INCREMENT, DECREMENT):
            self._allow(block, UP if act == INCREMENT else DOWN)
            number = self._value(block) + (number if act == INCREMENT else -number)
        else:
            return super().special(command)
        self._put(block, value_block((number + 2**31) % 2**32 - 2**31, block))
        return Answer()

    def _value(self, block: int) -> int:
        """The value in a value block.

        Raises:
            Refused: The block has another format.
        """
        content = self._block(block)
        value = int.from_bytes(content[:4], "little", signed=True)
        if content[:13] != value_block(value, content[12])[:13]:
            raise Refused(NO_INFORMATION)
        return value


def value_block(value: int, address: int) -> bytes:
    """The 16 bytes of a value block (MF1S50YYX, 8.6.2.1).

    Args:
        value: The value, 32 bits with a sign.
        address: The address byte, which a card keeps and does not look at.
    """
    plain = value.to_bytes(4, "little", signed=True)
    inverse = bytes(byte ^ 0xFF for byte in plain)
    return plain + inverse + plain + bytes((address, address ^ 0xFF)) * 2
