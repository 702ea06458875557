"""A virtual PIV card: the PIV card application of SP 800-73-4, parts 1 and 2.

The card has four keys, each with a self-signed certificate:

====  ====================  ========  =======================================
Key   Purpose               Kind      PIN
====  ====================  ========  =======================================
9A    PIV authentication    RSA-2048  once
9C    digital signature     P-256     before each signature
9D    key management        RSA-2048  once
9E    card authentication   P-256     never
====  ====================  ========  =======================================

The card carries out SELECT, GET DATA, VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER, GENERAL
AUTHENTICATE (signature, and key agreement with a P-256 key) and GET RESPONSE, with command
chaining. The card has no administration: no PUT DATA, no key generation, no card management key.
PIN ``123456``, PUK ``12345678``. The keys are new for every card object.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards import tlv
from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.interindustry import CHAINING, Ins, Refused, Sw, joined
from ccid.virtual.cards.passwords import SPECIFIC, Password, SecurityStatus
from ccid.virtual.cards.piv_keys import EccKey, PrivateKey, RsaKey

RID, PIX = bytes.fromhex("A000000308"), bytes.fromhex("000010000100")
AID = RID + PIX
"""Application identifier (SP 800-73-4 part 1, 2.2)."""
MORE_DATA = 0x6100
"""SW1-SW2: SW2 is the number of bytes for GET RESPONSE."""
MAX_CHAINED = 4096
"""Bytes of data of a whole command chain."""

AUTHENTICATION, SIGNATURE, MANAGEMENT, CARD = 0x9A, 0x9C, 0x9D, 0x9E
"""Key references (SP 800-73-4 part 1, table 4b)."""
CERTIFICATES = {0x5FC105: AUTHENTICATION, 0x5FC10A: SIGNATURE, 0x5FC10B: MANAGEMENT, 0x5FC101: CARD}
"""Tags of the certificates, and their keys (SP 800-73-4 part 1, table 3)."""
CAPABILITY_CONTAINER, CHUID, DISCOVERY = 0x5FC107, 0x5FC102, 0x7E
TAG_LIST, DATA = 0x5C, 0x53
DYNAMIC_AUTHENTICATION, CHALLENGE, RESPONSE, EXPONENTIATION = 0x7C, 0x81, 0x82, 0x85
"""Tags of GENERAL AUTHENTICATE (SP 800-73-4 part 2, table 7)."""
PIN_REFERENCE = 0x80
PIN, PUK = b"123456", b"12345678"


class PivIns(IntEnum):
    """Instruction bytes beside those of :class:`Ins` (SP 800-73-4 part 2, table 2)."""

    GENERAL_AUTHENTICATE = 0x87
    GET_DATA = 0xCB


class PivCard(Application):
    """A PIV card.

    Args:
        atr: The answer to reset; the default offers T=0 and T=1.
        keys: The keys by key reference; by default four new ones.

    Raises:
        CcidError: The package cryptography is missing.
    """

    # T=0 and T=1, TA1 = 96, IFSC 254, BWI 4, CWI 5, historical bytes "ccidPIV", TCK.
    atr = bytes.fromhex("3B D7 96 00 80 31 FE 45 63 63 69 64 50 49 56 09")

    def __init__(
        self, atr: bytes | None = None, *, keys: Mapping[int, PrivateKey] | None = None
    ) -> None:
        super().__init__(atr)
        self._keys = _new_keys() if keys is None else dict(keys)
        self._objects = _objects(self._keys)
        self._pin = Password(1 | SPECIFIC, PIN, resetting_code=PUK)  # P2 of PIV's commands is 80
        self._security = SecurityStatus()
        self._forget()

    def _forget(self) -> None:
        """Nothing is verified, chained or pending."""
        self._security.clear()
        self._just_verified = False
        self._chain: CommandApdu | None = None
        self._rest = b""

    def reset(self) -> None:
        super().reset()
        self._forget()

    def process(self, command: CommandApdu) -> Answer:
        try:
            data = self._data(command)
        except Refused as refusal:
            self._chain, self._rest = None, b""
            return Answer(sw=refusal.sw)
        if len(data) <= command.ne:
            return Answer(data)
        self._rest = data[command.ne :]
        left = len(self._rest) if len(self._rest) <= 0xFF else 0  # 0: 256 or more
        return Answer(data[: command.ne], MORE_DATA | left)

    def _data(self, command: CommandApdu) -> bytes:
        """Carry out a command; return the whole response data field. Raises Refused."""
        if command.cla & ~CHAINING:
            raise Refused(Sw.CLA_NOT_SUPPORTED)
        rest, self._rest = self._rest, b""
        if command.ins == Ins.GET_RESPONSE:
            if not rest:
                raise Refused(Sw.CONDITIONS_OF_USE_NOT_SATISFIED)
            return rest
        whole = self._chained(command)
        if whole is None:
            return b""
        may_sign, self._just_verified = self._just_verified, False
        match whole.ins:
            case Ins.SELECT:
                return self._select(whole)
            case PivIns.GET_DATA:
                return self._get_data(whole)
            case Ins.VERIFY:
                self._verify(whole)
            case Ins.CHANGE_REFERENCE_DATA:
                self._check_reference(whole)
                self._security.change(self._pin, whole.p1, whole.data)
            case Ins.RESET_RETRY_COUNTER:
                self._check_reference(whole)
                self._security.reset_counter(self._pin, whole.p1, whole.data)
            case PivIns.GENERAL_AUTHENTICATE:
                return self._general_authenticate(whole, may_sign)
            case _:
                raise Refused(Sw.INS_NOT_SUPPORTED)
        return b""

    def _chained(self, command: CommandApdu) -> CommandApdu | None:
        """The command with the data of its whole chain; None before the last part.

        ISO/IEC 7816-4:2013 5.3.3.
        """
        begun, self._chain = self._chain, None
        if begun is not None and begun.header[1:] != command.header[1:]:
            begun = None  # another command ends a chain (SP 800-73-4 part 2, 3.2.4)
        whole = joined(begun, command, MAX_CHAINED)
        if not command.cla & CHAINING:
            return whole
        self._chain = whole
        return None

    # Commands ---------------------------------------------------------------------------------

    def _select(self, command: CommandApdu) -> bytes:
        """SELECT (SP 800-73-4 part 2, 3.1.1); the AID may lack the version or the whole PIX."""
        if (command.p1, command.p2) != (0x04, 0x00):
            raise Refused(Sw.FUNCTION_NOT_SUPPORTED)
        if len(command.data) < len(RID) or not AID.startswith(command.data):
            raise Refused(Sw.FILE_NOT_FOUND)
        self._security.clear()
        return tlv.encode(
            0x61,
            tlv.encode(0x4F, PIX)
            + tlv.encode(0x79, tlv.encode(0x4F, RID))
            + tlv.encode(0x50, b"ccid virtual PIV"),
        )

    def _get_data(self, command: CommandApdu) -> bytes:
        """GET DATA (SP 800-73-4 part 2, 3.1.2)."""
        if (command.p1, command.p2) != (0x3F, 0xFF):
            raise Refused(Sw.INCORRECT_P1_P2)
        tag = int.from_bytes(_only(command.data, TAG_LIST), "big")
        if tag not in self._objects:
            raise Refused(Sw.FILE_NOT_FOUND)
        return self._objects[tag]

    def _verify(self, command: CommandApdu) -> None:
        """VERIFY (SP 800-73-4 part 2, 3.2.1)."""
        self._check_reference(command)
        self._security.verify(self._pin, command.p1, command.data)
        self._just_verified = bool(command.data)

    def _check_reference(self, command: CommandApdu) -> None:
        if command.p2 != PIN_REFERENCE:
            raise Refused(Sw.REFERENCED_DATA_NOT_FOUND)

    def _general_authenticate(self, command: CommandApdu, may_sign: bool) -> bytes:
        """GENERAL AUTHENTICATE (SP 800-73-4 part 2, 3.2.4 and appendix A)."""
        key = self._keys.get(command.p2)
        if key is None or key.algorithm != command.p1:
            raise Refused(Sw.INCORRECT_P1_P2)
        is_allowed = self._security.satisfies(self._pin)
        if command.p2 == SIGNATURE:
            is_allowed = may_sign
        if not is_allowed and command.p2 != CARD:
            raise Refused(Sw.SECURITY_STATUS_NOT_SATISFIED)
        try:
            objects = dict(tlv.decode(_only(command.data, DYNAMIC_AUTHENTICATION)))
            if objects.keys() == {RESPONSE, CHALLENGE} and not objects[RESPONSE]:
                result = key.sign(objects[CHALLENGE])
            elif objects.keys() == {RESPONSE, EXPONENTIATION} and not objects[RESPONSE]:
                result = key.agree(objects[EXPONENTIATION])
            else:
                raise Refused(Sw.INCORRECT_DATA)
        except ValueError:  # WrongInput among them
            raise Refused(Sw.INCORRECT_DATA) from None
        return tlv.encode(DYNAMIC_AUTHENTICATION, tlv.encode(RESPONSE, result))


def _only(data: bytes, tag: int) -> bytes:
    """The value of the only data object in ``data``. Raises Refused for other data."""
    try:
        ((found, value),) = tlv.decode(data)
    except ValueError:
        raise Refused(Sw.INCORRECT_DATA) from None
    if found != tag:
        raise Refused(Sw.INCORRECT_DATA)
    return value


def _new_keys() -> dict[int, PrivateKey]:
    return {
        AUTHENTICATION: RsaKey("ccid virtual PIV authentication"),
        SIGNATURE: EccKey("ccid virtual PIV signature"),
        MANAGEMENT: RsaKey("ccid virtual PIV key management"),
        CARD: EccKey("ccid virtual PIV card authentication"),
    }


def _objects(keys: Mapping[int, PrivateKey]) -> dict[int, bytes]:
    """The data objects by tag, as GET DATA returns them (SP 800-73-4 part 1, appendix A)."""
    chuid = (
        tlv.encode(0x30, bytes.fromhex("D4E739DA739CED39CE739D836858210842108421C84210C3EB"))
        + tlv.encode(0x34, bytes.fromhex("63636964000000000000000050495601"))
        + tlv.encode(0x35, b"20391231")
        + tlv.encode(0x3E, b"")
        + tlv.encode(0xFE, b"")
    )
    container = tlv.encode(0xF0, RID + bytes.fromhex("0116FF02") + b"ccid virtual") + b"".join(
        tlv.encode(tag, bytes.fromhex(value))
        for tag, value in (
            (0xF1, "21"), (0xF2, "21"), (0xF3, ""), (0xF4, "00"), (0xF5, "10"), (0xF6, ""),
            (0xF7, ""), (0xFA, ""), (0xFB, ""), (0xFC, ""), (0xFD, ""), (0xFE, ""),
        )
    )  # fmt: skip
    policy = tlv.encode(0x4F, AID) + tlv.encode(0x5F2F, bytes.fromhex("4000"))
    found = {
        CHUID: tlv.encode(DATA, chuid),
        CAPABILITY_CONTAINER: tlv.encode(DATA, container),
        DISCOVERY: tlv.encode(DISCOVERY, policy),
    }
    for tag, reference in CERTIFICATES.items():
        if reference in keys:
            content = tlv.encode(0x70, keys[reference].certificate)
            content += tlv.encode(0x71, b"\0") + tlv.encode(0xFE, b"")
            found[tag] = tlv.encode(DATA, content)
    return found
