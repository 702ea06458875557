"""The instructions (INS) of commands that carry a PIN, a key or biometric data. Pure."""

from __future__ import annotations

VERIFY = (0x20, 0x21)
CHANGE_REFERENCE_DATA = (0x24, 0x25)
DISABLE_VERIFICATION = (0x26, 0x27)
ENABLE_VERIFICATION = (0x28, 0x29)
SECURITY_OPERATION = (0x2A, 0x2B)
RESET_RETRY_COUNTER = (0x2C, 0x2D)
PERFORM_BIOMETRIC_OPERATION = (0x2E, 0x2F)
GENERATE_KEY_PAIR = (0x46, 0x47)
IMPORT_CARD_SECRET = (0x48,)
GENERAL_AUTHENTICATE = (0x86, 0x87)
INTERNAL_AUTHENTICATE = (0x88, 0x89)
PUT_DATA = (0xDA, 0xDB)
PUT_KEY = (0xD8,)
ONE_TIME_PASSWORDS = (0xA2, 0xA3, 0xA5)
"""CALCULATE, VALIDATE and SEND REMAINING of the OATH application (YKOATH); A2 is SEARCH RECORD in
ISO/IEC 7816-4."""
IMPORT_KEY = (0xFE, 0xFF)
"""IMPORT ASYMMETRIC KEY and SET MANAGEMENT KEY of PIV applications."""
SECRET_INS = frozenset(
    VERIFY
    + CHANGE_REFERENCE_DATA
    + DISABLE_VERIFICATION
    + ENABLE_VERIFICATION
    + SECURITY_OPERATION
    + RESET_RETRY_COUNTER
    + PERFORM_BIOMETRIC_OPERATION
    + IMPORT_CARD_SECRET
    + GENERATE_KEY_PAIR
    + GENERAL_AUTHENTICATE
    + INTERNAL_AUTHENTICATE
    + PUT_DATA
    + PUT_KEY
    + ONE_TIME_PASSWORDS
    + IMPORT_KEY
)
"""Instructions whose data or response are secret, in any class (ISO/IEC 7816-4:2013 11.5,
ISO/IEC 7816-8 and -11, OpenPGP card 3.4, NIST SP 800-73, GlobalPlatform 2.3)."""

GET_RESPONSE = 0xC0
ENVELOPE = (0xC2, 0xC3)
"""The data of an ENVELOPE are a command, or a part of a command (ISO/IEC 7816-3:2006 12.2)."""

UNSECRET_INS = frozenset(range(256)) - {
    *SECRET_INS,
    *ENVELOPE,
    GET_RESPONSE,
    0xA4,  # SELECT; CALCULATE ALL of OATH
    0xCA,  # GET DATA: a data object for private use may be a secret
    *range(0x60, 0x70),
    *range(0x90, 0xA0),
}
"""Instructions of which a command without data, and its response, are no secret in the classes 00
to 1F."""
