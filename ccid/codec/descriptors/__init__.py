"""USB descriptors of a reader: bytes to objects and back. Pure.

- ``standard``: the standard descriptors (USB 2.0, 9.6).
- ``smart_card``: the smart card device class descriptor of 54 bytes (USB CCID rev 1.1, 5.1).
- ``configuration``: a whole configuration, and the smart-card readers in it.
- ``class_requests``: the class-specific requests on the control pipe (USB CCID rev 1.1, 5.3).
"""

from ccid.codec.descriptors.class_requests import ClassControl, parse_u32_list
from ccid.codec.descriptors.configuration import (
    Configuration,
    Endpoint,
    Interface,
    SmartCardInterface,
    parse_configuration,
    smart_card_interfaces,
)
from ccid.codec.descriptors.smart_card import SmartCardDescriptor
from ccid.codec.descriptors.standard import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
)

__all__ = [
    "ClassControl",
    "Configuration",
    "ConfigurationDescriptor",
    "DeviceDescriptor",
    "Endpoint",
    "EndpointDescriptor",
    "Interface",
    "InterfaceDescriptor",
    "SmartCardDescriptor",
    "SmartCardInterface",
    "parse_configuration",
    "parse_u32_list",
    "smart_card_interfaces",
]
