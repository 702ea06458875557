"""Passwords, retry counters and the security status: ISO/IEC 7816-4:2013 9.1 and 11.5."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ccid.virtual.cards.interindustry import Refused, Sw

MIN_LENGTH, MAX_LENGTH = 4, 8
"""Bytes of a password. FF may pad a password to the longest length."""
MAX_TRIES = 15
"""The largest number of tries that SW1-SW2 = 63Cx can tell."""

SPECIFIC = 0x80
"""b8 of the qualifier P2: set for specific reference data, of a DF; clear for global data."""


class _Counted:
    """A reference value and its retry counter."""

    def __init__(self, value: bytes, tries: int) -> None:
        if not 1 <= tries <= MAX_TRIES:
            raise ValueError(f"{tries} tries; a retry counter is 1 to {MAX_TRIES}")
        self.value = value
        self.tries = self.left = tries

    def compare(self, presented: bytes) -> None:
        """Compare ``presented`` with the reference value.

        Only a comparison changes the counter.

        Raises:
            Refused: 63Cx for another value, 6983 without a further try, 6700 for a wrong length.
        """
        if not self.left:
            raise Refused(Sw.AUTHENTICATION_METHOD_BLOCKED)
        if not 1 <= len(presented) <= MAX_LENGTH:
            raise Refused(Sw.WRONG_LENGTH)
        from hmac import compare_digest  # here: the import loads OpenSSL, megabytes

        if not compare_digest(_unpadded(presented), self.value):
            self.left -= 1
            raise Refused(Sw.COUNTER | self.left)
        self.left = self.tries


class Password:
    """A password of a DF, with its retry counter and resetting code.

    ``repr`` and exceptions do not show the password or the code.

    Args:
        reference: P2 of VERIFY: number 1 to 31, with :data:`SPECIFIC` for a DF other than the MF.
        value: 4 to 8 bytes. Empty: the password is not usable until RESET RETRY COUNTER sets one.
        tries: Number of wrong presentations in a row that block the password.
        resetting_code: 4 to 8 bytes; empty if a blocked password stays blocked.
        resetting_tries: Number of wrong presentations in a row that block the resetting code.
    """

    def __init__(
        self,
        reference: int,
        value: bytes = b"",
        *,
        tries: int = 3,
        resetting_code: bytes = b"",
        resetting_tries: int = 10,
    ) -> None:
        if not 1 <= reference & ~SPECIFIC <= 31:
            raise ValueError(f"no reference data have the reference 0x{reference:02X}")
        for secret in filter(None, (value, resetting_code)):
            if not MIN_LENGTH <= len(_unpadded(secret)) <= MAX_LENGTH:
                raise ValueError(f"a password has {MIN_LENGTH} to {MAX_LENGTH} bytes")
        self.reference = reference
        self._own = _Counted(_unpadded(value), tries)
        self._code = _Counted(_unpadded(resetting_code), resetting_tries)

    @property
    def left(self) -> int:
        """Further tries allowed."""
        return self._own.left

    def compare(self, presented: bytes) -> None:
        """Compare; a wrong value decrements the counter and raises 63Cx."""
        self.check_usable()
        self._own.compare(presented)

    def check_usable(self) -> None:
        """Raise 6984 for a password without a value, 6983 for a blocked password."""
        if not self._own.value:
            raise Refused(Sw.REFERENCE_DATA_NOT_USABLE)
        if not self._own.left:
            raise Refused(Sw.AUTHENTICATION_METHOD_BLOCKED)

    def change(self, old_and_new: bytes) -> None:
        """Compare the first part with the value; the second part is the new value."""
        self.check_usable()
        old, new = self._split(old_and_new, self._own)
        self._own.compare(old)
        self._own.value = new

    def replace(self, new: bytes) -> None:
        """Set a new value."""
        self._own.value = _acceptable(new)

    def reset(self, code: bytes, *, with_new: bool) -> None:
        """Compare the resetting code and restore the retry counter; set a new value if asked."""
        if not self._code.value:
            raise Refused(Sw.CONDITIONS_OF_USE_NOT_SATISFIED)
        if not with_new:
            self._code.compare(code)
        else:
            code, new = self._split(code, self._code)
            self._code.compare(code)
            self._own.value = new
        self._own.left = self._own.tries

    def _split(self, data: bytes, first: _Counted) -> tuple[bytes, bytes]:
        """Split two passwords: both padded, or the first with the length of ``first``."""
        end = MAX_LENGTH if len(data) == 2 * MAX_LENGTH else len(first.value)
        return data[:end], _acceptable(data[end:])

    def __repr__(self) -> str:
        return f"<Password 0x{self.reference:02X}, {self.left} tries left>"


def _unpadded(value: bytes) -> bytes:
    return value.rstrip(b"\xff") if len(value) == MAX_LENGTH else value


def _acceptable(new: bytes) -> bytes:
    """A new value without padding; raise 6700 or 6A80 for an unacceptable value."""
    if not 1 <= len(new) <= MAX_LENGTH:
        raise Refused(Sw.WRONG_LENGTH)
    if len(_unpadded(new)) < MIN_LENGTH:
        raise Refused(Sw.INCORRECT_DATA)
    return _unpadded(new)


class SecurityStatus:
    """The set of verified passwords, and the commands that change the set.

    CHANGE REFERENCE DATA with the right old password verifies the password; RESET RETRY COUNTER
    does not.
    """

    def __init__(self) -> None:
        self._verified: set[Password] = set()

    @property
    def any_verified(self) -> bool:
        """True if a password is verified."""
        return bool(self._verified)

    def clear(self) -> None:
        """End the verification of all passwords."""
        self._verified.clear()

    def keep(self, passwords: Iterable[Password]) -> None:
        """End the verification of all passwords but these."""
        self._verified.intersection_update(passwords)

    def forget(self, passwords: Iterable[Password]) -> None:
        """End the verification of these passwords."""
        self._verified.difference_update(passwords)

    def satisfies(self, password: Password) -> bool:
        """True if ``password`` is verified."""
        return password in self._verified

    def verify(self, password: Password, p1: int, data: bytes) -> None:
        """VERIFY (ISO/IEC 7816-4:2013 11.5.6).

        P1 = FF ends the verification. Without data, 63Cx tells the number of further tries.
        """
        match p1, bool(data):
            case 0x00, True:
                self._judge(password, password.compare, data)
            case 0x00, False:
                password.check_usable()
                if not self.satisfies(password):
                    raise Refused(Sw.COUNTER | password.left)
            case 0xFF, False:
                self._verified.discard(password)
            case 0xFF, True:
                raise Refused(Sw.NC_INCONSISTENT_WITH_P1_P2)
            case _:
                raise Refused(Sw.INCORRECT_P1_P2)

    def change(self, password: Password, p1: int, data: bytes) -> None:
        """CHANGE REFERENCE DATA (ISO/IEC 7816-4:2013 11.5.7).

        P1 = 00: the old and the new password. P1 = 01: the new password, after VERIFY.
        """
        match p1:
            case 0x00:
                self._judge(password, password.change, data)
            case 0x01:
                password.check_usable()
                if not self.satisfies(password):
                    raise Refused(Sw.SECURITY_STATUS_NOT_SATISFIED)
                password.replace(data)
            case _:
                raise Refused(Sw.INCORRECT_P1_P2)

    def reset_counter(self, password: Password, p1: int, data: bytes) -> None:
        """RESET RETRY COUNTER (ISO/IEC 7816-4:2013 11.5.10).

        P1 = 00: the resetting code and a new password. P1 = 01: the resetting code.
        """
        if p1 not in (0x00, 0x01):
            raise Refused(Sw.INCORRECT_P1_P2)
        password.reset(data, with_new=p1 == 0x00)
        self._verified.discard(password)

    def _judge(self, password: Password, action: Callable[[bytes], None], data: bytes) -> None:
        """Run ``action``; ``password`` is verified afterwards if ``action`` accepts ``data``."""
        try:
            action(data)
        except Refused as refusal:
            if refusal.sw & 0xFFF0 == Sw.COUNTER:
                self._verified.discard(password)
            raise
        self._verified.add(password)
