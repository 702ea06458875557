"""The vocabulary of quirks: every way a reader is known to differ from what its descriptors and
the specification say.

A field of :class:`Quirks` is declared once, with the name it has in ``readers/*.toml``, the kind
of its value, the module where it acts, and why it is there. ``docs/quirks.md`` is made from that.
Code asks ``quirks.max_ifsd``, never for a vendor's number.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from ccid.codes import ExchangeLevel, PowerSelect
from ccid.known.quirks import kinds
from ccid.known.quirks.kinds import Kind

TPDU_ESCAPE = b"\x1a"
"""The Escape of the quirk ``tpdu-escape``: what stands before a T=1 block, both ways."""


def quirk(name: str, kind: Kind, where: str, why: str, *, default: Any = None) -> Any:
    """Declare one quirk.

    Args:
        name: As ``readers/*.toml`` has it: the specification's name where it has one.
        kind: What its value may be.
        where: The module where it acts.
        why: A sentence or two: what it does, and what goes wrong without it.
        default: Its value for a reader that does not have it.
    """
    about = {"quirk": name, "kind": kind, "where": where, "why": why}
    return dataclasses.field(default=default, metadata=about)


def flag(name: str, where: str, why: str) -> Any:
    """Declare a quirk that is there or not."""
    return quirk(name, kinds.FLAG, where, why, default=False)


@dataclass(frozen=True, slots=True)
class Quirks:
    """What the table says of one reader; the defaults for one that it does not know.

    Attributes:
        name: Its name, None if the table does not know it.
        status: ``supported``, ``should-work``, ``unsupported``, ``disabled`` or ``unknown``.
        reason: Why, where the status needs one.

    All other fields are quirks; ``docs/quirks.md`` tells of each.
    """

    name: str | None = None
    status: str = "unknown"
    reason: str = ""

    # The class descriptor ---------------------------------------------------------------------

    no_pin_support: bool = flag(
        "no-pin-support",
        "ccid.known.quirks.fixups",
        "bPINSupport is taken as 0: the reader claims a PIN pad it does not have, or one that "
        "also types the PIN to the host.",
    )
    protocols: int | None = quirk(
        "dwProtocols",
        kinds.BITS,
        "ccid.known.quirks.fixups",
        "Taken instead of the descriptor's dwProtocols, whose bytes are in the wrong order.",
    )
    max_ifsd: int | None = quirk(
        "dwMaxIFSD",
        kinds.LENGTH,
        "ccid.known.quirks.fixups",
        "Taken instead of the descriptor's dwMaxIFSD, which is wrong.",
    )
    max_data_rate: int | None = quirk(
        "dwMaxDataRate",
        kinds.RATE,
        "ccid.known.quirks.fixups",
        "Taken instead of the descriptor's dwMaxDataRate; listed rates beyond it are dropped. "
        "The higher ones the reader declares do not work.",
    )
    data_rates: tuple[int, ...] | None = quirk(
        "data-rates",
        kinds.RATES,
        "ccid.known.quirks.fixups",
        "Taken instead of the list that GET_DATA_RATES returns.",
    )
    exchange_level: ExchangeLevel | None = quirk(
        "exchange-level",
        kinds.LEVEL,
        "ccid.known.quirks.fixups",
        "Taken instead of the level in dwFeatures, bits 16 to 18: the reader does not do what "
        "it declares there, or chains responses without declaring it.",
    )
    exchange_level_if: ExchangeLevel | None = quirk(
        "exchange-level-if",
        kinds.LEVEL,
        "ccid.known.quirks.fixups",
        "exchange-level holds only for a reader that declares this level.",
    )
    features_set: int = quirk(
        "dwFeatures-set",
        kinds.BITS,
        "ccid.known.quirks.fixups",
        "These bits of dwFeatures are taken as set.",
        default=0,
    )

    # Is it usable -----------------------------------------------------------------------------

    min_release: int | None = quirk(
        "min-bcdDevice",
        kinds.RELEASE,
        "ccid.device.verdict",
        "Firmware older than this has faults that no driver can mend; such a reader is refused.",
    )
    needs_mode_switch: bool = flag(
        "needs-mode-switch",
        "ccid.probe.doctor_command",
        "The device comes up as something else and has to be switched by the maker's program "
        "before it is a reader.",
    )
    autosuspend_breaks: bool = flag(
        "autosuspend-breaks",
        "ccid.probe.doctor_command",
        "The reader does not survive USB autosuspend, which has to stay off for it.",
    )

    # Opening ----------------------------------------------------------------------------------

    open_delay_s: float = quirk(
        "open-delay-s",
        kinds.SECONDS,
        "ccid.device.reader",
        "The reader is left alone so long before its first command: it starts slowly.",
        default=0.0,
    )
    first_timeout_s: float | None = quirk(
        "first-timeout-s",
        kinds.SECONDS,
        "ccid.device.reader",
        "The first PC_to_RDR_GetSlotStatus may take at least this long.",
    )
    status_timeout_s: float | None = quirk(
        "status-timeout-s",
        kinds.SECONDS,
        "ccid.link.slot_commands",
        "Any PC_to_RDR_GetSlotStatus may take at least this long: a contactless reader looks "
        "for a card before it answers.",
    )
    drain_before_write_s: float = quirk(
        "drain-before-write-s",
        kinds.SECONDS,
        "ccid.device.reader",
        "Before every bulk-OUT transfer an empty bulk-IN transfer of this timeout is done and "
        "its result ignored: on USB 3 ports the reader sends stray empty packets.",
        default=0.0,
    )
    event_before_status_s: float = quirk(
        "event-before-status-s",
        kinds.SECONDS,
        "ccid.link.slot_commands",
        "On macOS the interrupt endpoint is read for so long before each PC_to_RDR_GetSlotStatus.",
        default=0.0,
    )
    features_escape: bytes | None = quirk(
        "features-escape",
        kinds.HEX,
        "ccid.pin.pad_structures",
        "This Escape, sent once, returns the maker's block of 21 bytes on PIN pad and display "
        "(PIN sizes, allowed bEntryValidationCondition bits, whether bNumberMessage is heeded). "
        "Readers without it refuse, and that is no error.",
    )
    firmware_escape: bytes | None = quirk(
        "firmware-escape",
        kinds.HEX,
        "ccid.device.control",
        "This Escape returns the firmware's name, for the PC/SC property sFirmwareID.",
    )
    pin_messages_escape: bytes | None = quirk(
        "pin-messages-escape",
        kinds.HEX,
        "ccid.pin.pad_structures",
        "This Escape, ten texts of 16 characters behind it, sets what the display shows while "
        "a PIN is entered; it shows nothing of use otherwise. Texts in order: enter PIN, new "
        "PIN, confirm, right, wrong, time over, tries left (* stands for the figure), insert "
        "card, card error, PIN blocked.",
    )
    retry_counter_escape: bytes | None = quirk(
        "retry-counter-escape",
        kinds.HEX,
        "ccid.pin.pad_structures",
        "On the user's wish this Escape keeps the reader from sending an empty VERIFY of its "
        "own for the retry counter, which some cards (OpenPGP) reject.",
    )
    apdu_mode_escape: bytes | None = quirk(
        "apdu-mode-escape",
        kinds.HEX,
        "ccid.device.reader",
        "On the user's wish this Escape switches the reader to short APDU level (EMV mode).",
    )

    # Several slots, several interfaces ---------------------------------------------------------

    composite_interfaces: tuple[int, ...] = quirk(
        "composite-interfaces",
        kinds.INTERFACES,
        "ccid.device.composite",
        "The interfaces with these bInterfaceNumbers are slots of one reader, which pcscd may "
        "want as one.",
        default=(),
    )
    interfaces_take_turns: bool = flag(
        "interfaces-take-turns",
        "ccid.device.reader_link",
        "The interfaces of the device cannot be talked to at the same time: the reader stops "
        "answering on both.",
    )
    presence_of_interface: int | None = quirk(
        "presence-of-interface",
        kinds.BYTE,
        "ccid.device.reader_link",
        "This interface has no card detector: a card is in it while one is in the interface of "
        "this bInterfaceNumber, which has to be open in this process.",
    )

    # The card ---------------------------------------------------------------------------------

    power_on_voltage: PowerSelect | None = quirk(
        "power-on-voltage",
        kinds.VOLTAGE,
        "ccid.session.activation",
        "The first voltage a card is tried with.",
    )
    power_off_before_on: bool = flag(
        "power-off-before-on",
        "ccid.link.slot_commands",
        "PC_to_RDR_IccPowerOff goes before every PC_to_RDR_IccPowerOn, also for a warm reset.",
    )
    power_on_escape: bytes | None = quirk(
        "power-on-escape",
        kinds.HEX,
        "ccid.link.slot_commands",
        "When a power-on fails with power-on-escape-bError, this Escape (ISO mode) and another "
        "attempt follow, once for each voltage.",
    )
    power_on_escape_error: int | None = quirk(
        "power-on-escape-bError",
        kinds.BYTE,
        "ccid.link.slot_commands",
        "bError of the failed power-on that power-on-escape mends.",
    )
    presence_by_power: bool = flag(
        "presence-by-power",
        "ccid.link.slot_commands",
        "PC_to_RDR_GetSlotStatus does not tell whether a card is in: it counts as in until a "
        "power-on fails, and as in again with the next that succeeds.",
    )
    no_pps: bool = flag(
        "no-pps",
        "ccid.session.activation",
        "No PPS is sent, so the card keeps the first protocol its ATR offers.",
    )
    reset_if_parameters_fail: bool = flag(
        "reset-if-parameters-fail",
        "ccid.session.activation",
        "When PC_to_RDR_SetParameters for T=1 fails, the card is reset twice, cold and warm, "
        "and used as it is (a card that lowers TA1 on its warm reset).",
    )
    t1_timeout_extra_s: float = quirk(
        "t1-timeout-extra-s",
        kinds.SECONDS,
        "ccid.session.activation",
        "So much more time for an answer with T=1: the reader never asks for a time extension.",
        default=0.0,
    )
    tpdu_escape: bool = flag(
        "tpdu-escape",
        "ccid.session.exchange",
        "The reader is at short APDU level and takes extended APDUs, with T=1, by its maker's "
        "Escape: 1A and a block of the host's T=1, answered by 1A and the card's block. Its own "
        "T=1 is out of step then, so S(RESYNCH) comes first.",
    )
    split_full_packets: bool = flag(
        "split-full-packets",
        "ccid.session.exchange.block_links",
        "At character level, an answer that would fill its last USB packet is fetched as one "
        "byte and the rest: the reader loses it otherwise.",
    )
    pseudo_apdus: tuple[tuple[bytes, str], ...] = quirk(
        "pseudo-apdus",
        kinds.APDUS,
        "ccid.device.card",
        "These command APDUs never reach the card: the driver answers with the text ({bcdDevice} "
        "stands for the firmware release) and 90 00. The maker's programs ask this way.",
        default=(),
    )

    # PIN pads ---------------------------------------------------------------------------------

    pin_delay_s: float = quirk(
        "pin-delay-s",
        kinds.SECONDS,
        "ccid.pin.pad_structures",
        "Before a PIN is verified so much time passes: the Enter key that started it is still "
        "down, and would end it.",
        default=0.0,
    )
    pin_verify_messages: int | None = quirk(
        "pin-verify-bNumberMessage",
        kinds.BYTE,
        "ccid.pin.pad_structures",
        "bNumberMessage of a verification is set to this, whatever is asked for.",
    )
    pin_modify_messages: int | None = quirk(
        "pin-modify-bNumberMessage",
        kinds.BYTE,
        "ccid.pin.pad_structures",
        "bNumberMessage of a modification is set to this; with others the card gets a wrong APDU.",
    )
    pin_modify_messages_for_0: int | None = quirk(
        "pin-modify-bNumberMessage-for-0",
        kinds.BYTE,
        "ccid.pin.pad_structures",
        "bNumberMessage 0 of a modification is replaced by this; the reader refuses 0.",
    )
    pin_modify_all_indexes: bool = flag(
        "pin-modify-all-indexes",
        "ccid.pin.pad_structures",
        "A modification carries bMsgIndex1 to 3 whatever its bNumberMessage, against the "
        "specification (unless the block of features-escape says it was mended).",
    )
    pin_modify_zero_indexes: bool = flag(
        "pin-modify-zero-indexes",
        "ccid.pin.pad_structures",
        "A modification carries three bMsgIndex of 0 and bNumberMessage 0.",
    )
    pin_entry_validation: int | None = quirk(
        "pin-bEntryValidationCondition",
        kinds.BYTE,
        "ccid.pin.pad_structures",
        "bEntryValidationCondition is set to this, whatever is asked for.",
    )
    pin_validation_reported: int | None = quirk(
        "pin-validation-reported",
        kinds.BYTE,
        "ccid.pin.pad_structures",
        "bEntryValidationCondition that the PIN properties report, 7 without.",
    )
    pin_sizes: tuple[int, int] | None = quirk(
        "pin-sizes",
        kinds.SIZES,
        "ccid.pin.pad_structures",
        "Fewest and most digits the PIN pad takes, reported as bMinPINSize and bMaxPINSize.",
    )
    pin_swap_extra_digit: bool = flag(
        "pin-swap-extra-digit",
        "ccid.pin.pad_structures",
        "The two bytes of a verification's wPINMaxExtraDigit are exchanged.",
    )
    pin_case1_escape: bytes | None = quirk(
        "pin-case1-escape",
        kinds.HEX,
        "ccid.pin.pad_structures",
        "Before a verification whose APDU has four bytes and whose bmPINBlockString is 0, this "
        "Escape has the reader append the PIN as it is. The Secure command needs a bSeq after it.",
    )

    # What applications may ask ----------------------------------------------------------------

    escapes_allowed: tuple[str, ...] = quirk(
        "escapes-allowed",
        kinds.PATTERNS,
        "ccid.device.control",
        "Escape commands that applications may send through pcscd without further permission.",
        default=(),
    )
    mct_reader_direct: bool = flag(
        "mct-reader-direct",
        "ccid.device.control",
        "The PC/SC feature MCT_READER_DIRECT is offered: 20 7x 00 00 00 goes as Escape.",
    )

    def allows_escape(self, data: bytes) -> bool:
        """May an application send this Escape without further permission?"""
        return any(_matches(pattern, data) for pattern in self.escapes_allowed)


def _matches(pattern: str, data: bytes) -> bool:
    if pattern == "*":
        return True
    wanted = pattern.split()
    return len(wanted) == len(data) and all(
        word == ".." or int(word, 16) == byte for word, byte in zip(wanted, data, strict=True)
    )


class Description(NamedTuple):
    """A quirk, described.

    Attributes:
        name: As ``readers/*.toml`` has it.
        field: As code asks for it.
        kind: What its value may be.
        where: The module where it acts.
        why: What it does, and what goes wrong without it.
        default: Its value for a reader that does not have it.
    """

    name: str
    field: str
    kind: Kind
    where: str
    why: str
    default: Any


VOCABULARY = {
    field.metadata["quirk"]: Description(
        field.metadata["quirk"],
        field.name,
        field.metadata["kind"],
        field.metadata["where"],
        field.metadata["why"],
        field.default,
    )
    for field in dataclasses.fields(Quirks)
    if field.metadata
}
"""Every quirk, by the name that ``readers/*.toml`` has for it."""
