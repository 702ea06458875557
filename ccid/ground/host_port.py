"""``HOST:PORT`` of a command line. Pure."""

from __future__ import annotations

import re

from ccid.ground.safe_text import short

_PATTERN = re.compile(r"(?:\[(?P<six>[^]]+)]|(?P<host>[^:]+))(?::(?P<port>\d{1,5}))?", re.ASCII)


def host_port(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPv6]:PORT`` or ``HOST``.

    Raises:
        ValueError: ``text`` has another form, or the port is larger than 65535.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{short(text)} is not HOST:PORT")
    port = int(match["port"] or default_port)
    if port > 0xFFFF:
        raise ValueError(f"there is no port {port}")
    return match["six"] or match["host"], port


def shown(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets for an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
