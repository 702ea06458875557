"""The class descriptor of a reader, corrected by quirks. Pure.

The driver uses the corrected descriptor. The original descriptor stays in
:attr:`ccid.transport.ReaderInfo.descriptor`.
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
    """The class descriptor with the corrections of the quirks.

    Args:
        quirks: The quirks of this interface and slot of the reader.
        descriptor: The class descriptor from the reader.
        protocol: bInterfaceProtocol. An ICCD version B device that declares short APDU level chains
            blocks, and counts as a device at extended APDU level; one that declares character level
            counts as a device at TPDU level.

    Returns:
        The corrected descriptor; ``descriptor`` itself if nothing changes.
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
    """The level of exchange that replaces the declared level; None to keep the declared level."""
    wanted, only_if = quirks.exchange_level, quirks.exchange_level_if
    if wanted is not None and only_if in (None, declared):
        return wanted
    if protocol is InterfaceProtocol.ICCD_B and declared is ExchangeLevel.SHORT_APDU:
        return ExchangeLevel.EXTENDED_APDU
    if protocol is InterfaceProtocol.ICCD_B and declared is ExchangeLevel.CHARACTER:
        return ExchangeLevel.TPDU
    return None


def data_rates(quirks: Quirks, listed: Sequence[int]) -> list[int]:
    """The data rates, in bit/s, that the reader supports.

    Args:
        quirks: The quirks of this slot of the reader.
        listed: The answer to GET_DATA_RATES, in bit/s.
    """
    rates = listed if quirks.data_rates is None else quirks.data_rates
    highest = quirks.max_data_rate
    return [rate for rate in rates if highest is None or rate <= highest]


def takes_apdu_mode(descriptor: SmartCardDescriptor) -> SmartCardDescriptor:
    """``descriptor`` at short APDU level: for a reader that accepted ``apdu-mode-escape``."""
    features = descriptor.dwFeatures & ~EXCHANGE_LEVEL_MASK | Features.SHORT_APDU_LEVEL
    return dataclasses.replace(descriptor, dwFeatures=features)
