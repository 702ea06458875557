"""The vocabulary of quirks: every known difference of a reader from its descriptors and from the
specification, declared once. Pure.

Each quirk is a field of :class:`Quirks`, declared with its name in ``readers/*.toml``, the kind of
its value, the module that applies the quirk, and the reason. ``tools/quirks-table`` writes
``docs/quirks.md`` from the declarations. Code asks for ``quirks.max_ifsd``, never for the number of
a vendor.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from ccid.codes import ExchangeLevel, PowerSelect
from ccid.ground.records import record
from ccid.known.quirks import value_kinds
from ccid.known.quirks.value_kinds import Kind

TPDU_ESCAPE = b"\x1a"
"""The first byte of an Escape of the quirk ``tpdu-escape``, and of its answer; a T=1 block
follows."""


def quirk(name: str, kind: Kind, where: str, why: str, *, default: Any = None) -> Any:
    """Declare one quirk.

    Args:
        name: The name in ``readers/*.toml``: the name in the specification, if there is one.
        kind: The kind of the value.
        where: The module that applies the quirk.
        why: One or two sentences: the effect of the quirk, and the fault of a reader without it.
        default: The value for a reader without the quirk.
    """
    about = {"quirk": name, "kind": kind, "where": where, "why": why}
    return dataclasses.field(default=default, metadata=about)


def flag(name: str, where: str, why: str) -> Any:
    """Declare a quirk without a value: a reader has the quirk or not."""
    return quirk(name, value_kinds.FLAG, where, why, default=False)


@record
class Quirks:
    """The quirks of one reader; the default values for a reader that is not in the table.

    Attributes:
        name: Name of the reader; None if the reader is not in the table.
        status: ``supported``, ``should-work``, ``unsupported``, ``disabled`` or ``unknown``.
        reason: The reason for the status, if the status needs a reason.

    All other fields are quirks; ``docs/quirks.md`` describes each.
    """

    name: str | None = None
    status: str = "unknown"
    reason: str = ""

    # The class descriptor ---------------------------------------------------------------------

    no_pin_support: bool = flag(
        "no-pin-support",
        "ccid.known.quirks.descriptor_fixups",
        "bPINSupport counts as 0: the reader declares a PIN pad that the reader does not have, or "
        "a PIN pad that also types the PIN to the host.",
    )
    protocols: int | None = quirk(
        "dwProtocols",
        value_kinds.BITS,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces dwProtocols of the descriptor, whose bytes are in the wrong order.",
    )
    max_ifsd: int | None = quirk(
        "dwMaxIFSD",
        value_kinds.LENGTH,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces dwMaxIFSD of the descriptor, which is wrong.",
    )
    message_length: int | None = quirk(
        "dwMaxCCIDMessageLength",
        value_kinds.LENGTH,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces a smaller dwMaxCCIDMessageLength of the descriptor: old SCM readers declare 263, "
        "and accept the 271 bytes of a message with the longest short APDU.",
    )
    max_data_rate: int | None = quirk(
        "dwMaxDataRate",
        value_kinds.RATE,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces dwMaxDataRate of the descriptor, and removes higher data rates from the list: "
        "the higher data rates that the reader declares do not work.",
    )
    data_rates: tuple[int, ...] | None = quirk(
        "data-rates",
        value_kinds.RATES,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces the list that GET_DATA_RATES returns.",
    )
    exchange_level: ExchangeLevel | None = quirk(
        "exchange-level",
        value_kinds.LEVEL,
        "ccid.known.quirks.descriptor_fixups",
        "Replaces the level of exchange in dwFeatures, bits 16 to 18: the reader does not work at "
        "the declared level, or chains responses without declaring extended APDU level.",
    )
    exchange_level_if: ExchangeLevel | None = quirk(
        "exchange-level-if",
        value_kinds.LEVEL,
        "ccid.known.quirks.descriptor_fixups",
        "exchange-level is in force only for a reader that declares this level.",
    )
    features_set: int = quirk(
        "dwFeatures-set",
        value_kinds.BITS,
        "ccid.known.quirks.descriptor_fixups",
        "These bits of dwFeatures count as set.",
        default=0,
    )

    # Whether the reader is usable -------------------------------------------------------------

    min_release: int | None = quirk(
        "min-bcdDevice",
        value_kinds.RELEASE,
        "ccid.device.verdict",
        "An older firmware has faults that no driver can correct; such a reader is refused.",
    )
    needs_mode_switch: bool = flag(
        "needs-mode-switch",
        "ccid.probe.doctor_command",
        "The device starts as another kind of device. The program of the manufacturer has to "
        "switch the device to reader mode.",
    )
    autosuspend_breaks: bool = flag(
        "autosuspend-breaks",
        "ccid.probe.doctor_command",
        "The reader fails after USB autosuspend, which has to stay off for this reader.",
    )

    # Opening ----------------------------------------------------------------------------------

    open_delay_s: float = quirk(
        "open-delay-s",
        value_kinds.SECONDS,
        "ccid.device.reader",
        "The driver waits this time before the first command: the reader starts slowly.",
        default=0.0,
    )
    first_timeout_s: float | None = quirk(
        "first-timeout-s",
        value_kinds.SECONDS,
        "ccid.device.reader",
        "The first PC_to_RDR_GetSlotStatus may take at least this long.",
    )
    status_timeout_s: float | None = quirk(
        "status-timeout-s",
        value_kinds.SECONDS,
        "ccid.link.slot_commands",
        "Any PC_to_RDR_GetSlotStatus may take at least this long: a contactless reader searches "
        "for a card before the answer.",
    )
    drain_before_write_s: float = quirk(
        "drain-before-write-s",
        value_kinds.SECONDS,
        "ccid.device.reader",
        "Before every bulk-OUT transfer the driver makes an empty bulk-IN transfer with this "
        "time-out and ignores the result: on USB 3 ports the reader sends stray empty packets.",
        default=0.0,
    )
    event_before_status_s: float = quirk(
        "event-before-status-s",
        value_kinds.SECONDS,
        "ccid.link.slot_commands",
        "On macOS the driver reads the interrupt endpoint for this time before each "
        "PC_to_RDR_GetSlotStatus.",
        default=0.0,
    )
    features_escape: bytes | None = quirk(
        "features-escape",
        value_kinds.HEX,
        "ccid.pin.pad_structures",
        "This Escape, sent once, returns a block of 21 bytes about PIN pad and display: PIN "
        "sizes, allowed bits of bEntryValidationCondition, whether the reader heeds "
        "bNumberMessage. A reader without the block refuses the Escape; that is no error.",
    )
    firmware_escape: bytes | None = quirk(
        "firmware-escape",
        value_kinds.HEX,
        "ccid.device.control",
        "This Escape returns the name of the firmware, for the PC/SC property sFirmwareID.",
    )
    pin_messages_escape: bytes | None = quirk(
        "pin-messages-escape",
        value_kinds.HEX,
        "ccid.pin.pad_structures",
        "This Escape, followed by ten texts of 16 characters, sets the texts that the display "
        "shows during a PIN entry; without it the display shows no useful text. The texts in "
        "order: enter PIN, new PIN, confirm, right, wrong, time over, tries left (* stands for "
        "the number), insert card, card error, PIN blocked.",
    )
    retry_counter_escape: bytes | None = quirk(
        "retry-counter-escape",
        value_kinds.HEX,
        "ccid.pin.pad_structures",
        "On request of the user, this Escape keeps the reader from sending an empty VERIFY to "
        "read the retry counter; some cards (OpenPGP) reject such a VERIFY.",
    )
    apdu_mode_escape: bytes | None = quirk(
        "apdu-mode-escape",
        value_kinds.HEX,
        "ccid.device.reader",
        "On request of the user, this Escape switches the reader to short APDU level (EMV mode).",
    )

    # Several slots, several interfaces ---------------------------------------------------------

    composite_interfaces: tuple[int, ...] = quirk(
        "composite-interfaces",
        value_kinds.INTERFACES,
        "ccid.device.composite",
        "The interfaces with these values of bInterfaceNumber are slots of one reader; pcscd may "
        "show them as one reader.",
        default=(),
    )
    interfaces_take_turns: bool = flag(
        "interfaces-take-turns",
        "ccid.device.reader_link",
        "The driver uses the interfaces of the device one at a time: during simultaneous use the "
        "reader stops answering on both.",
    )
    presence_of_interface: int | None = quirk(
        "presence-of-interface",
        value_kinds.BYTE,
        "ccid.device.reader_link",
        "This interface has no card detector. A card is present while a card is in the interface "
        "with this bInterfaceNumber, which has to be open in this process.",
    )

    # The card ---------------------------------------------------------------------------------

    power_on_voltage: PowerSelect | None = quirk(
        "power-on-voltage",
        value_kinds.VOLTAGE,
        "ccid.session.activation",
        "The voltage of the first power-on of a card.",
    )
    power_off_before_on: bool = flag(
        "power-off-before-on",
        "ccid.link.slot_commands",
        "The driver sends PC_to_RDR_IccPowerOff before every PC_to_RDR_IccPowerOn, also for a "
        "warm reset.",
    )
    power_on_escape: bytes | None = quirk(
        "power-on-escape",
        value_kinds.HEX,
        "ccid.link.slot_commands",
        "After a power-on that failed with power-on-escape-bError, the driver sends this Escape "
        "(ISO mode) and tries again, once for each voltage.",
    )
    power_on_escape_error: int | None = quirk(
        "power-on-escape-bError",
        value_kinds.BYTE,
        "ccid.link.slot_commands",
        "bError of a failed power-on after which power-on-escape helps.",
    )
    presence_by_power: bool = flag(
        "presence-by-power",
        "ccid.link.slot_commands",
        "PC_to_RDR_GetSlotStatus does not tell whether a card is present. A card counts as "
        "present until a power-on fails, and again after the next successful power-on.",
    )
    no_pps: bool = flag(
        "no-pps",
        "ccid.session.activation",
        "The driver sends no PPS; the card keeps the first protocol of its ATR.",
    )
    reset_if_parameters_fail: bool = flag(
        "reset-if-parameters-fail",
        "ccid.session.activation",
        "If PC_to_RDR_SetParameters for T=1 fails, the driver resets the card twice, cold and "
        "warm, and uses the parameters after that (for a card that lowers TA1 on a warm reset).",
    )
    t1_timeout_extra_s: float = quirk(
        "t1-timeout-extra-s",
        value_kinds.SECONDS,
        "ccid.session.activation",
        "The driver waits this time in addition for an answer with T=1: the reader never sends a "
        "time extension.",
        default=0.0,
    )
    tpdu_escape: bool = flag(
        "tpdu-escape",
        "ccid.session.exchange",
        "The reader is at short APDU level, and takes extended APDUs, with T=1, by an Escape of "
        "its manufacturer: 1A and a T=1 block of the host, answered by 1A and the block of the "
        "card. The T=1 of the reader is out of step after that; so S(RESYNCH) comes first.",
    )
    split_full_packets: bool = flag(
        "split-full-packets",
        "ccid.session.exchange.block_links",
        "At character level, the driver fetches an answer that would fill its last USB packet as "
        "one byte and the rest: the reader would lose the whole answer.",
    )
    pseudo_apdus: tuple[tuple[bytes, str], ...] = quirk(
        "pseudo-apdus",
        value_kinds.APDUS,
        "ccid.device.card",
        "The driver does not send these command APDUs to the card. The driver answers with the "
        "text ({bcdDevice} stands for the firmware release) and 90 00. Programs of the "
        "manufacturer identify the reader this way.",
        default=(),
    )

    # PIN pads ---------------------------------------------------------------------------------

    pin_delay_s: float = quirk(
        "pin-delay-s",
        value_kinds.SECONDS,
        "ccid.pin.pad_structures",
        "The driver waits this time before a PIN verification: the Enter key that started the "
        "verification may still be pressed, and would end the PIN entry.",
        default=0.0,
    )
    pin_verify_messages: int | None = quirk(
        "pin-verify-bNumberMessage",
        value_kinds.BYTE,
        "ccid.pin.pad_structures",
        "bNumberMessage of a verification always has this value, whatever an application requests.",
    )
    pin_modify_messages: int | None = quirk(
        "pin-modify-bNumberMessage",
        value_kinds.BYTE,
        "ccid.pin.pad_structures",
        "bNumberMessage of a modification always has this value; with other values the card gets "
        "a wrong APDU.",
    )
    pin_modify_messages_for_0: int | None = quirk(
        "pin-modify-bNumberMessage-for-0",
        value_kinds.BYTE,
        "ccid.pin.pad_structures",
        "This value replaces bNumberMessage 0 of a modification; the reader refuses 0.",
    )
    pin_modify_all_indexes: bool = flag(
        "pin-modify-all-indexes",
        "ccid.pin.pad_structures",
        "A modification has bMsgIndex1 to bMsgIndex3 for every value of bNumberMessage, against "
        "the specification (unless the block of features-escape says that the firmware heeds "
        "bNumberMessage).",
    )
    pin_modify_zero_indexes: bool = flag(
        "pin-modify-zero-indexes",
        "ccid.pin.pad_structures",
        "A modification has bNumberMessage 0, and bMsgIndex1 to bMsgIndex3 of 0.",
    )
    pin_entry_validation: int | None = quirk(
        "pin-bEntryValidationCondition",
        value_kinds.BYTE,
        "ccid.pin.pad_structures",
        "bEntryValidationCondition always has this value, whatever an application requests.",
    )
    pin_validation_reported: int | None = quirk(
        "pin-validation-reported",
        value_kinds.BYTE,
        "ccid.pin.pad_structures",
        "bEntryValidationCondition in the PIN properties for applications; 7 without the quirk.",
    )
    pin_sizes: tuple[int, int] | None = quirk(
        "pin-sizes",
        value_kinds.SIZES,
        "ccid.pin.pad_structures",
        "Least and greatest number of digits of a PIN, reported to applications as bMinPINSize "
        "and bMaxPINSize.",
    )
    pin_swap_extra_digit: bool = flag(
        "pin-swap-extra-digit",
        "ccid.pin.pad_structures",
        "The two bytes of wPINMaxExtraDigit of a verification are swapped.",
    )
    pin_case1_escape: bytes | None = quirk(
        "pin-case1-escape",
        value_kinds.HEX,
        "ccid.pin.pad_structures",
        "Before a verification with an APDU of four bytes and bmPINBlockString 0, this Escape "
        "makes the reader append the PIN unchanged. The Escape must come before "
        "PC_to_RDR_Secure, with a bSeq of its own.",
    )

    # Requests from applications ---------------------------------------------------------------

    escapes_allowed: tuple[str, ...] = quirk(
        "escapes-allowed",
        value_kinds.PATTERNS,
        "ccid.device.control",
        "Escape commands that applications may send through pcscd without further permission.",
        default=(),
    )
    mct_reader_direct: bool = flag(
        "mct-reader-direct",
        "ccid.device.control",
        "The driver offers the PC/SC feature MCT_READER_DIRECT: a command 20 7x 00 00 00 goes to "
        "the reader as Escape.",
    )

    # Buzzer and LEDs --------------------------------------------------------------------------

    buzzer_escape: str | None = quirk(
        "buzzer-escape",
        value_kinds.TEMPLATE,
        "ccid.device.buzzer_and_leds",
        "This Escape sounds the buzzer. Its place for the duration names unit and length: "
        "{10ms} is one byte that counts 10 ms, {1ms:2} two bytes, the more significant one first.",
    )
    led_escape: str | None = quirk(
        "led-escape",
        value_kinds.TEMPLATE,
        "ccid.device.buzzer_and_leds",
        "This Escape sets all LEDs. A byte {0C|red=01|green=02} is 0C, with 01 added if the LED "
        "`red` is to be lit and 02 if `green` is.",
    )
    gadgets_reply: str | None = quirk(
        "gadgets-reply",
        value_kinds.PATTERN,
        "ccid.device.buzzer_and_leds",
        "The answer to buzzer-escape or led-escape begins with these bytes if the reader obeyed.",
    )
    gadgets_source: str | None = quirk(
        "gadgets-source",
        value_kinds.TEXT,
        "ccid.device.buzzer_and_leds",
        "The public document that buzzer-escape and led-escape are from.",
    )

    def allows_escape(self, data: bytes) -> bool:
        """True if an application may send this Escape without further permission.

        Args:
            data: The data of the Escape.
        """
        return any(_matches(pattern, data) for pattern in self.escapes_allowed)


def _matches(pattern: str, data: bytes) -> bool:
    """True if ``data`` match a pattern of the kind :data:`~.value_kinds.PATTERNS`."""
    if pattern == "*":
        return True
    return len(pattern.split()) == len(data) and begins_like(pattern, data)


def begins_like(pattern: str, data: bytes) -> bool:
    """True if the first bytes of ``data`` match a pattern of the kind
    :data:`~.value_kinds.PATTERN`.

    Args:
        pattern: Bytes in hexadecimal, ``..`` for any one.
        data: The bytes.
    """
    wanted = pattern.split()
    return len(wanted) <= len(data) and all(
        word == ".." or int(word, 16) == byte for word, byte in zip(wanted, data, strict=False)
    )


class Description(NamedTuple):
    """The declaration of one quirk.

    Attributes:
        name: The name in ``readers/*.toml``.
        field: The field of :class:`Quirks`.
        kind: The kind of the value.
        where: The module that applies the quirk.
        why: The effect of the quirk, and the fault of a reader without it.
        default: The value for a reader without the quirk.
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
"""Every quirk, by its name in ``readers/*.toml``."""
