"""Private keys and certificates of a virtual PIV card (SP 800-78-4), by the package cryptography.

The package is the extra ``pyccid[piv]``, and is imported when a key is made. The host pads the RSA
block (SP 800-73-4 part 2, appendix A), so :class:`RsaKey` computes the bare RSA function.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ccid.errors import CcidError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

RSA_2048, ECC_P256 = 0x07, 0x11
"""Algorithm identifiers (SP 800-78-4, table 6-2)."""
RSA_BYTES, COORDINATE_BYTES = 256, 32
UNCOMPRESSED_POINT = 0x04
NEEDS_CRYPTOGRAPHY = (
    "a PIV card needs the package cryptography; get it with: pip install 'pyccid[piv]'"
)
YEARS = 20


class WrongInput(ValueError):
    """The data are not a valid input of the key."""


class PrivateKey(ABC):
    """A private key with its certificate.

    ``repr`` does not show the key.

    Args:
        name: Common name of the self-signed certificate.

    Attributes:
        algorithm: Algorithm identifier, :data:`RSA_2048` or :data:`ECC_P256`.
        certificate: The certificate, DER.
    """

    algorithm: int
    certificate: bytes

    @abstractmethod
    def sign(self, challenge: bytes) -> bytes:
        """The response to a challenge. Raises WrongInput."""

    @abstractmethod
    def agree(self, point: bytes) -> bytes:
        """The shared secret with a public point. Raises WrongInput."""


class RsaKey(PrivateKey):
    """An RSA key of 2048 bits; see :class:`PrivateKey`.

    Raises:
        CcidError: The package cryptography is missing.
    """

    algorithm = RSA_2048

    def __init__(self, name: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import rsa
        except ImportError:
            raise CcidError(NEEDS_CRYPTOGRAPHY) from None
        key = rsa.generate_private_key(public_exponent=65537, key_size=8 * RSA_BYTES)
        self._numbers = key.private_numbers()
        self.certificate = _self_signed(key, name)

    def sign(self, challenge: bytes) -> bytes:
        """challenge^d mod n, for 256 bytes that are less than the modulus."""
        numbers = self._numbers
        block = int.from_bytes(challenge, "big")
        if len(challenge) != RSA_BYTES or block >= numbers.public_numbers.n:
            raise WrongInput("not a block for an RSA key of 2048 bits")
        p, q = numbers.p, numbers.q
        by_p, by_q = pow(block, numbers.dmp1, p), pow(block, numbers.dmq1, q)
        result = by_q + (numbers.iqmp * (by_p - by_q) % p) * q
        return result.to_bytes(RSA_BYTES, "big")

    def agree(self, point: bytes) -> bytes:
        raise WrongInput("an RSA key has no key agreement")


class EccKey(PrivateKey):
    """A key on the curve P-256; see :class:`PrivateKey`.

    Raises:
        CcidError: The package cryptography is missing.
    """

    algorithm = ECC_P256

    def __init__(self, name: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise CcidError(NEEDS_CRYPTOGRAPHY) from None
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _self_signed(self._key, name)

    def sign(self, challenge: bytes) -> bytes:
        """An ECDSA signature, DER, of a hash of at most 32 bytes."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        if not 0 < len(challenge) <= COORDINATE_BYTES:
            raise WrongInput("not a hash for a key on P-256")
        padded = challenge.rjust(COORDINATE_BYTES, b"\0")  # ECDSA takes the hash as a number
        return self._key.sign(padded, ec.ECDSA(Prehashed(hashes.SHA256())))

    def agree(self, point: bytes) -> bytes:
        """The x coordinate of the product with an uncompressed point (SP 800-73-4, 3.2.4)."""
        from cryptography.hazmat.primitives.asymmetric import ec

        if len(point) != 1 + 2 * COORDINATE_BYTES or point[0] != UNCOMPRESSED_POINT:
            raise WrongInput("not an uncompressed point of P-256")
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise WrongInput("not a point of P-256") from None
        return self._key.exchange(ec.ECDH(), public)


def _self_signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    subject: x509.Name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin.replace(year=begin.year + YEARS))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.DER)
