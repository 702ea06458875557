"""The virtual PIV card; its signatures are judged by the package cryptography."""

from __future__ import annotations

import os
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import ccid
from ccid.codes import ExchangeLevel, Protocol
from ccid.errors import CcidError
from ccid.iso7816.atr import Atr
from ccid.probe.__main__ import main
from ccid.virtual.card_kinds import card_kind
from ccid.virtual.cards import tlv
from ccid.virtual.cards.piv_card import (
    AID,
    AUTHENTICATION,
    CARD,
    CERTIFICATES,
    MANAGEMENT,
    PIN,
    PUK,
    SIGNATURE,
    PivCard,
    _new_keys,
)
from ccid.virtual.cards.piv_keys import ECC_P256, RSA_2048, PrivateKey

SHA256_PREFIX = bytes.fromhex("3031300D060960864801650304020105000420")
VERIFY = bytes.fromhex("0020008008") + PIN.ljust(8, b"\xff")
OTHER = b"654321"


@pytest.fixture(scope="module")
def keys() -> dict[int, PrivateKey]:
    return _new_keys()


@pytest.fixture
def card(keys: dict[int, PrivateKey]) -> PivCard:
    card = PivCard(keys=keys)
    card.reset()
    return card


def send(card: PivCard, apdu: bytes) -> tuple[bytes, int]:
    """Response data and SW of a short APDU, with GET RESPONSE."""
    answer = card.transmit(apdu)
    data = answer.data
    while answer.sw >> 8 == 0x61:
        answer = card.transmit(bytes((0, 0xC0, 0, 0, answer.sw & 0xFF)))
        data += answer.data
    return data, answer.sw


def chained(card: PivCard, header: bytes, data: bytes) -> tuple[bytes, int]:
    """A command whose data may need several short APDUs."""
    while len(data) > 255:
        part, data = data[:255], data[255:]
        assert send(card, bytes((0x10,)) + header[1:] + bytes((255,)) + part) == (b"", 0x9000)
    return send(card, header + bytes((len(data),)) + data + b"\0")


def get_data(card: PivCard, tag: str) -> tuple[bytes, int]:
    data = tlv.encode(0x5C, bytes.fromhex(tag))
    return send(card, bytes.fromhex("00CB3FFF") + bytes((len(data),)) + data + b"\0")


def authenticate(
    card: PivCard, algorithm: int, key: int, challenge: bytes, tag: int = 0x81
) -> tuple[bytes, int]:
    """GENERAL AUTHENTICATE; the value of the response object."""
    template = tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(tag, challenge))
    data, sw = chained(card, bytes((0x00, 0x87, algorithm, key)), template)
    if sw != 0x9000:
        return data, sw
    ((outer, value),) = tlv.decode(data)
    ((inner, response),) = tlv.decode(value)
    assert (outer, inner) == (0x7C, 0x82)
    return response, sw


def certificate(card: PivCard, key: int) -> x509.Certificate:
    tag = next(tag for tag, reference in CERTIFICATES.items() if reference == key)
    data, sw = get_data(card, f"{tag:06X}")
    assert sw == 0x9000
    ((outer, content),) = tlv.decode(data)
    assert outer == 0x53
    objects = dict(tlv.decode(content))
    assert objects[0x71] == b"\0"
    return x509.load_der_x509_certificate(objects[0x70])


def padded(digest: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 of a SHA-256 digest, 256 bytes (RFC 8017, 9.2)."""
    info = SHA256_PREFIX + digest
    return b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info


def sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def test_the_atr() -> None:
    atr = Atr.parse(PivCard.atr)
    assert set(atr.protocols) == {0, 1}
    assert atr.historical == b"ccidPIV"


@pytest.mark.parametrize("aid", [AID, AID[:9], AID[:5]])
def test_select(card: PivCard, aid: bytes) -> None:
    data, sw = send(card, bytes((0, 0xA4, 4, 0, len(aid))) + aid + b"\0")
    assert sw == 0x9000
    ((tag, template),) = tlv.decode(data)
    assert tag == 0x61
    assert dict(tlv.decode(template))[0x4F] == AID[5:]


@pytest.mark.parametrize(
    ("apdu", "sw"),
    [
        ("00A4040005 A000000309", 0x6A82),
        ("00A4040004 A0000003", 0x6A82),
        ("00A4000002 3F00", 0x6A81),
        ("00CB3FFE05 5C035FC102 00", 0x6A86),
        ("00CB3FFF05 5C035FC109 00", 0x6A82),
        ("00CB3FFF05 5D035FC102 00", 0x6A80),
        ("00CB3FFF05 5C045FC102 00", 0x6A80),
        ("00CB3FFF 00", 0x6A80),
        ("00200081", 0x6A88),
        ("0087119A 04 7C028200 00", 0x6A86),
        ("0087119F 04 7C028200 00", 0x6A86),
        ("0087119E 04 7C028200 00", 0x6A80),
        ("0087119E 08 7C0682008102FFFF 00", 0x9000),
        ("0087119E 06 7C0482008100 00", 0x6A80),
        ("0087119E 08 7C0682018102FFFF 00", 0x6A80),
        ("00C0000000", 0x6985),
        ("00470000", 0x6D00),
        ("80CB3FFF05 5C035FC102 00", 0x6E00),
        ("0087", 0x6700),
    ],
)
def test_status_bytes(card: PivCard, apdu: str, sw: int) -> None:
    assert send(card, bytes.fromhex(apdu))[1] == sw


@pytest.mark.parametrize("tag", ["5FC107", "5FC102"])
def test_containers(card: PivCard, tag: str) -> None:
    data, sw = get_data(card, tag)
    ((outer, content),) = tlv.decode(data)
    assert (outer, sw) == (0x53, 0x9000)
    objects = dict(tlv.decode(content))
    assert objects[0xFE] == b""
    assert len(objects.get(0xF0, bytes(21))) == 21
    assert len(objects.get(0x30, bytes(25))) == 25
    assert len(objects.get(0x34, bytes(16))) == 16


def test_discovery(card: PivCard) -> None:
    assert get_data(card, "7E") == (
        bytes.fromhex("7E12 4F0BA000000308000010000100 5F2F024000"),
        0x9000,
    )


@pytest.mark.parametrize("key", [AUTHENTICATION, MANAGEMENT])
def test_an_rsa_signature(card: PivCard, key: int) -> None:
    message = os.urandom(99)
    assert send(card, VERIFY)[1] == 0x9000
    signature, sw = authenticate(card, RSA_2048, key, padded(sha256(message)))
    assert (sw, len(signature)) == (0x9000, 256)
    public = certificate(card, key).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize("key", [SIGNATURE, CARD])
@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA1()], ids=["sha256", "sha1"])
def test_an_ecdsa_signature(card: PivCard, key: int, algorithm: hashes.HashAlgorithm) -> None:
    digest = os.urandom(algorithm.digest_size)
    if key == SIGNATURE:
        assert send(card, VERIFY)[1] == 0x9000
    signature, sw = authenticate(card, ECC_P256, key, digest)
    assert sw == 0x9000
    public = certificate(card, key).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))


def test_decryption(card: PivCard) -> None:
    public = certificate(card, MANAGEMENT).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    secret = public.encrypt(b"a secret", padding.PKCS1v15())
    send(card, VERIFY)
    block, _ = authenticate(card, RSA_2048, MANAGEMENT, secret)
    assert block[:2] == b"\0\2"
    assert block.partition(b"\0\2")[2].partition(b"\0")[2] == b"a secret"


def test_key_agreement(card: PivCard) -> None:
    mine = ec.generate_private_key(ec.SECP256R1())
    point = mine.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    theirs = certificate(card, CARD).public_key()
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    shared, sw = authenticate(card, ECC_P256, CARD, point, tag=0x85)
    assert (shared, sw) == (mine.exchange(ec.ECDH(), theirs), 0x9000)


@pytest.mark.parametrize("point", [b"", bytes(65), b"\x04" + bytes(64), b"\x02" + bytes(32)])
def test_points_that_are_none(card: PivCard, point: bytes) -> None:
    assert authenticate(card, ECC_P256, CARD, point, tag=0x85)[1] == 0x6A80


@pytest.mark.parametrize("block", [b"", bytes(255), b"\xff" * 256, bytes(257)])
def test_blocks_that_are_none(card: PivCard, block: bytes) -> None:
    send(card, VERIFY)
    assert authenticate(card, RSA_2048, AUTHENTICATION, block)[1] == 0x6A80
    assert authenticate(card, RSA_2048, AUTHENTICATION, b"\4" + bytes(64), tag=0x85)[1] == 0x6A80


# The PIN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm", "size"),
    [(AUTHENTICATION, RSA_2048, 256), (MANAGEMENT, RSA_2048, 256), (SIGNATURE, ECC_P256, 32)],
)
def test_no_signature_without_the_pin(card: PivCard, key: int, algorithm: int, size: int) -> None:
    challenge = bytes(size - 1) + b"\2"
    assert authenticate(card, algorithm, key, challenge)[1] == 0x6982
    send(card, VERIFY)
    assert authenticate(card, algorithm, key, challenge)[1] == 0x9000
    again = authenticate(card, algorithm, key, challenge)[1]
    assert again == (0x6982 if key == SIGNATURE else 0x9000)
    card.reset()
    assert authenticate(card, algorithm, key, challenge)[1] == 0x6982


def test_the_pin_just_before_the_signature(card: PivCard) -> None:
    send(card, VERIFY)
    get_data(card, "7E")
    assert authenticate(card, ECC_P256, SIGNATURE, bytes(31) + b"\1")[1] == 0x6982
    send(card, VERIFY)
    assert send(card, bytes.fromhex("00200080"))[1] == 0x9000
    assert authenticate(card, ECC_P256, SIGNATURE, bytes(31) + b"\1")[1] == 0x6982


def test_tries(card: PivCard) -> None:
    wrong = VERIFY[:5] + OTHER + b"\xff\xff"
    assert send(card, bytes.fromhex("00200080"))[1] == 0x63C3
    assert [send(card, wrong)[1] for _ in range(4)] == [0x63C2, 0x63C1, 0x63C0, 0x6983]
    assert send(card, VERIFY)[1] == 0x6983
    unblock = bytes.fromhex("002C008010") + PUK + OTHER + b"\xff\xff"
    assert send(card, unblock)[1] == 0x9000
    assert send(card, wrong)[1] == 0x9000
    assert send(card, bytes.fromhex("0020FF80"))[1] == 0x9000
    assert send(card, bytes.fromhex("00200080"))[1] == 0x63C3


def test_another_pin(card: PivCard) -> None:
    change = bytes.fromhex("0024008010") + PIN + b"\xff\xff" + OTHER + b"\xff\xff"
    assert send(card, change)[1] == 0x9000
    assert send(card, VERIFY)[1] == 0x63C2


def test_another_command_ends_a_chain(card: PivCard) -> None:
    assert send(card, bytes.fromhex("1087119E02 7C06"))[1] == 0x9000
    assert get_data(card, "7E")[1] == 0x9000
    assert send(card, bytes.fromhex("0087119E04 82008102 00"))[1] == 0x6A80


def test_a_chain_has_a_limit(card: PivCard) -> None:
    part = bytes.fromhex("1087119EFF") + bytes(255)
    assert 0x6700 in [send(card, part)[1] for _ in range(20)]


# In a reader ------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", list(ExchangeLevel))
@pytest.mark.parametrize("protocol", list(Protocol))
def test_in_a_reader(keys: dict[int, PrivateKey], level: ExchangeLevel, protocol: Protocol) -> None:
    card = PivCard(keys=keys)
    with ccid.open_reader(ccid.VirtualReader(card, level=level)) as reader:
        with reader.slots[0].connect(protocol, auto_get_response=True) as connected:

            def send(apdu: bytes) -> bytes:
                data, sw = b"", 0x6100
                while sw >> 8 == 0x61:
                    response = connected.transmit(apdu)
                    data, sw = data + response[:-2], int.from_bytes(response[-2:], "big")
                    apdu = bytes((0, 0xC0, 0, 0, sw & 0xFF))
                assert sw == 0x9000
                return data

            send(bytes.fromhex("00A4040009") + AID[:9] + b"\0")
            send(VERIFY)
            template = tlv.encode(
                0x7C, tlv.encode(0x82, b"") + tlv.encode(0x81, padded(sha256(b"message")))
            )
            send(bytes.fromhex("1087079AFF") + template[:255])
            rest = template[255:]
            answer = send(bytes.fromhex("0087079A") + bytes((len(rest),)) + rest + b"\0")
    signature = answer[8:]
    public = x509.load_der_x509_certificate(keys[AUTHENTICATION].certificate).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apdu", "--virtual", "--card", "piv", "00CB3FFF035C017E00"]) == 0
    assert "7E 12 4F 0B" in capsys.readouterr().out


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    make = card_kind("piv").make
    assert make is not None
    with pytest.raises(CcidError, match=r"pip install 'pyccid\[piv\]'"):
        make()
    assert main(["card", "--virtual", "--card", "piv"]) == 1
    assert "pyccid[piv]" in capsys.readouterr().err


def test_neither_repr_nor_errors_show_a_key(keys: dict[int, PrivateKey], card: PivCard) -> None:
    assert repr(card).startswith("<ccid.virtual.cards.piv_card.PivCard object")
    for key in keys.values():
        assert "Numbers" not in repr(key)
