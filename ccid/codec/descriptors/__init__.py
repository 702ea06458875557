"""USB descriptors of a reader: bytes to objects and back, pure.

``standard`` declares the descriptors of USB 2.0 chapter 9.6, ``smart_card`` the 54 bytes of USB
CCID rev 1.1, 5.1, ``configuration`` walks a whole configuration and finds the readers in it, and
``class_requests`` has the class-specific requests.
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
