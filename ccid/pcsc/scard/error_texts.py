"""What SCardGetErrorMessage says."""

from __future__ import annotations

from ccid.pcsc.scard import scard_constants as c

TEXTS = {
    c.SCARD_S_SUCCESS: "Command successful.",
    c.SCARD_F_INTERNAL_ERROR: "Internal error.",
    c.SCARD_E_CANCELLED: "Command cancelled.",
    c.SCARD_E_INVALID_HANDLE: "Invalid handle.",
    c.SCARD_E_INVALID_PARAMETER: "Invalid parameter given.",
    c.SCARD_E_INVALID_TARGET: "Invalid target given.",
    c.SCARD_E_NO_MEMORY: "Not enough memory.",
    c.SCARD_F_WAITED_TOO_LONG: "Waited too long.",
    c.SCARD_E_INSUFFICIENT_BUFFER: "Insufficient buffer.",
    c.SCARD_E_UNKNOWN_READER: "Unknown reader specified.",
    c.SCARD_E_TIMEOUT: "Command timeout.",
    c.SCARD_E_SHARING_VIOLATION: "Sharing violation.",
    c.SCARD_E_NO_SMARTCARD: "No smart card inserted.",
    c.SCARD_E_UNKNOWN_CARD: "Unknown card.",
    c.SCARD_E_CANT_DISPOSE: "Cannot dispose handle.",
    c.SCARD_E_PROTO_MISMATCH: "Card protocol mismatch.",
    c.SCARD_E_NOT_READY: "Subsystem not ready.",
    c.SCARD_E_INVALID_VALUE: "Invalid value given.",
    c.SCARD_E_SYSTEM_CANCELLED: "System cancelled.",
    c.SCARD_F_COMM_ERROR: "RPC transport error.",
    c.SCARD_F_UNKNOWN_ERROR: "Unknown error.",
    c.SCARD_E_INVALID_ATR: "Invalid ATR.",
    c.SCARD_E_NOT_TRANSACTED: "Transaction failed.",
    c.SCARD_E_READER_UNAVAILABLE: "Reader is unavailable.",
    c.SCARD_E_PCI_TOO_SMALL: "PCI struct too small.",
    c.SCARD_E_READER_UNSUPPORTED: "Reader is unsupported.",
    c.SCARD_E_DUPLICATE_READER: "Reader already exists.",
    c.SCARD_E_CARD_UNSUPPORTED: "Card is unsupported.",
    c.SCARD_E_NO_SERVICE: "Service not available.",
    c.SCARD_E_SERVICE_STOPPED: "Service was stopped.",
    c.SCARD_E_UNSUPPORTED_FEATURE: "Feature not supported.",
    c.SCARD_E_NO_READERS_AVAILABLE: "Cannot find a smart card reader.",
    c.SCARD_W_UNSUPPORTED_CARD: "Card is not supported.",
    c.SCARD_W_UNRESPONSIVE_CARD: "Card is unresponsive.",
    c.SCARD_W_UNPOWERED_CARD: "Card is unpowered.",
    c.SCARD_W_RESET_CARD: "Card was reset.",
    c.SCARD_W_REMOVED_CARD: "Card was removed.",
    c.SCARD_W_SECURITY_VIOLATION: "Access denied.",
}
"""Programs compare some of these texts, so they are pcsc-lite's, which has them for these codes."""

LONG = 0xFFFF_FFFF_FFFF_FFFF
"""A code is a C long there, and a negative one is shown as such."""


def error_text(code: int) -> str:
    """The text for a return code.

    Args:
        code: Any number.
    """
    return TEXTS.get(code) or f"Unknown error: 0x{code & LONG:08X}"
