"""The class descriptor as it should be: what quirks mend in it, pure.

What the reader itself says stays in :attr:`ccid.transport.ReaderInfo.descriptor`; these are the
figures a driver goes by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccid.codes import EXCHANGE_LEVEL_MASK, ExchangeLevel, Features, InterfaceProtocol
from ccid.known.quirks.vocabulary import Quirks

if TYPE_CHECKING:
    from ccid.codec.descriptors import SmartCardDescriptor


def apply(
    quirks: Quirks,
    descriptor: SmartCardDescriptor,
    protocol: InterfaceProtocol | None = InterfaceProtocol.CCID,
) -> SmartCardDescriptor:
    """``descriptor`` as ``quirks`` mend it; the same object if they do not.

    Args:
        quirks: What is known of the reader (of this slot and interface of it).
        descriptor: What the reader says.
        protocol: bInterfaceProtocol. An ICCD version B device that declares short APDUs chains
            all the same, and counts as one at extended APDU level; its blocks are never less
            than a TPDU.
    """
    changes: dict[str, Any] = {}
    if quirks.no_pin_support:
        changes["bPINSupport"] = 0
    if quirks.protocols is not None:
        changes["dwProtocols"] = quirks.protocols
    if quirks.max_ifsd is not None:
        changes["dwMaxIFSD"] = quirks.max_ifsd
    if quirks.message_length is not None:
        declared = descriptor.dwMaxCCIDMessageLength
        changes["dwMaxCCIDMessageLength"] = max(declared, quirks.message_length)
    if quirks.max_data_rate is not None:
        changes["dwMaxDataRate"] = quirks.max_data_rate
    if quirks.data_rates is not None:
        changes["bNumDataRatesSupported"] = len(quirks.data_rates)
    features = descriptor.dwFeatures | quirks.features_set
    level = _level(quirks, descriptor.exchange_level, protocol)
    if level is not None:
        features = features & ~EXCHANGE_LEVEL_MASK | level
    changes["dwFeatures"] = features
    changes = {k: v for k, v in changes.items() if getattr(descriptor, k) != v}
    return dataclasses.replace(descriptor, **changes) if changes else descriptor


def _level(
    quirks: Quirks, declared: ExchangeLevel | None, protocol: InterfaceProtocol | None
) -> ExchangeLevel | None:
    """The level to take instead of the declared one; None to keep that."""
    wanted, only_if = quirks.exchange_level, quirks.exchange_level_if
    if wanted is not None and only_if in (None, declared):
        return wanted
    if protocol is InterfaceProtocol.ICCD_B and declared is ExchangeLevel.SHORT_APDU:
        return ExchangeLevel.EXTENDED_APDU
    if protocol is InterfaceProtocol.ICCD_B and declared is ExchangeLevel.CHARACTER:
        return ExchangeLevel.TPDU
    return None


def data_rates(quirks: Quirks, listed: Sequence[int]) -> list[int]:
    """The data rates (bit/s) a reader can do.

    Args:
        quirks: What is known of the reader (of this slot of it).
        listed: What GET_DATA_RATES returned.
    """
    rates = listed if quirks.data_rates is None else quirks.data_rates
    highest = quirks.max_data_rate
    return [rate for rate in rates if highest is None or rate <= highest]


def takes_apdu_mode(descriptor: SmartCardDescriptor) -> SmartCardDescriptor:
    """``descriptor`` after ``apdu-mode-escape`` was accepted: short APDU level."""
    features = descriptor.dwFeatures & ~EXCHANGE_LEVEL_MASK | Features.SHORT_APDU_LEVEL
    return dataclasses.replace(descriptor, dwFeatures=features)
