"""Passwords, their retry counters, and which were presented: ISO/IEC 7816-4:2013 9.1 and 11.5."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ccid.virtual.cards.interindustry import Refused, Sw

MIN_LENGTH, MAX_LENGTH = 4, 8
"""Bytes of a password. A shorter one may be padded to the longest with FF."""
MAX_TRIES = 15
"""The most that SW1-SW2 = 63Cx can tell."""

SPECIFIC = 0x80
"""b8 of the qualifier P2: specific reference data, of a DF; otherwise global."""


class _Counted:
    """A value to compare with, and how often that may still fail."""

    def __init__(self, value: bytes, tries: int) -> None:
        if not 1 <= tries <= MAX_TRIES:
            raise ValueError(f"{tries} tries; a retry counter is 1 to {MAX_TRIES}")
        self.value = value
        self.tries = self.left = tries

    def compare(self, presented: bytes) -> None:
        """Raise 63Cx if it is another, 6983 if no further try is left; 6700 for no length at all.

        Only a comparison changes the counter.
        """
        if not self.left:
            raise Refused(Sw.AUTHENTICATION_METHOD_BLOCKED)
        if not 1 <= len(presented) <= MAX_LENGTH:
            raise Refused(Sw.WRONG_LENGTH)
        from hmac import compare_digest  # it brings OpenSSL along, megabytes

        if not compare_digest(_unpadded(presented), self.value):
            self.left -= 1
            raise Refused(Sw.COUNTER | self.left)
        self.left = self.tries


class Password:
    """A password of a DF, with its retry counter and resetting code.

    Neither ``repr`` nor an exception ever tells the password or the code.

    Args:
        reference: Number 1 to 31, with :data:`SPECIFIC` unless it is of the MF: P2 of VERIFY.
        value: 4 to 8 bytes. Empty: it cannot be used until RESET RETRY COUNTER gives it one.
        tries: How often in a row it may be wrong.
        resetting_code: 4 to 8 bytes; empty if a blocked password stays blocked.
        resetting_tries: How often in a row the resetting code may be wrong.
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
        """Count down and raise 63Cx if ``presented`` is wrong."""
        self.check_usable()
        self._own.compare(presented)

    def check_usable(self) -> None:
        """Raise 6984 if it has no value yet, 6983 if it is blocked."""
        if not self._own.value:
            raise Refused(Sw.REFERENCE_DATA_NOT_USABLE)
        if not self._own.left:
            raise Refused(Sw.AUTHENTICATION_METHOD_BLOCKED)

    def change(self, old_and_new: bytes) -> None:
        """Compare the first part, take the second as the value."""
        self.check_usable()
        old, new = self._split(old_and_new, self._own)
        self._own.compare(old)
        self._own.value = new

    def replace(self, new: bytes) -> None:
        """Take another value."""
        self._own.value = _acceptable(new)

    def reset(self, code: bytes, *, with_new: bool) -> None:
        """Compare the resetting code, and restore the retry counter; perhaps with a new value."""
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
        """Two passwords one after the other: both padded, or the first as long as it is."""
        end = MAX_LENGTH if len(data) == 2 * MAX_LENGTH else len(first.value)
        return data[:end], _acceptable(data[end:])

    def __repr__(self) -> str:
        return f"<Password 0x{self.reference:02X}, {self.left} tries left>"


def _unpadded(value: bytes) -> bytes:
    return value.rstrip(b"\xff") if len(value) == MAX_LENGTH else value


def _acceptable(new: bytes) -> bytes:
    """A new value without its padding; 6700 or 6A80 if it cannot be one."""
    if not 1 <= len(new) <= MAX_LENGTH:
        raise Refused(Sw.WRONG_LENGTH)
    if len(_unpadded(new)) < MIN_LENGTH:
        raise Refused(Sw.INCORRECT_DATA)
    return _unpadded(new)


class SecurityStatus:
    """Which passwords were presented rightly, and the commands about them.

    CHANGE REFERENCE DATA with the right old password counts as its verification; RESET RETRY
    COUNTER never does.
    """

    def __init__(self) -> None:
        self._verified: set[Password] = set()

    @property
    def any_verified(self) -> bool:
        """Something is verified."""
        return bool(self._verified)

    def clear(self) -> None:
        """Nothing is verified."""
        self._verified.clear()

    def keep(self, passwords: Iterable[Password]) -> None:
        """Nothing but (some of) these is verified any more."""
        self._verified.intersection_update(passwords)

    def forget(self, passwords: Iterable[Password]) -> None:
        """None of these is verified any more."""
        self._verified.difference_update(passwords)

    def satisfies(self, password: Password) -> bool:
        """It was presented rightly."""
        return password in self._verified

    def verify(self, password: Password, p1: int, data: bytes) -> None:
        """VERIFY (ISO/IEC 7816-4:2013 11.5.6).

        P1 = FF sets the status to not verified. Without data, 63Cx tells the further tries.
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

        P1 = 00: the old password and the new. P1 = 01: the new one, after VERIFY.
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
        """It is verified if and only if ``action`` finds it right."""
        try:
            action(data)
        except Refused as refusal:
            if refusal.sw & 0xFFF0 == Sw.COUNTER:
                self._verified.discard(password)
            raise
        self._verified.add(password)
