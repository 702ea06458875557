"""The functions of ``smartcard.scard``, with pyscard's names of arguments and shapes of results.

None raises for what PC/SC has a return code for. An argument of the wrong type raises TypeError, as
there. Results of functions that failed are empty lists, empty strings and 0.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ccid.pcsc.manager import READER_GROUP, ReaderState, ScardCode, ScardError
from ccid.pcsc.scard.chosen_readers import forget, is_stopped, manager
from ccid.pcsc.scard.error_texts import error_text
from ccid.pcsc.scard.scard_arguments import byte_list, names, number, reader_states, text
from ccid.pcsc.scard.scard_constants import (
    SCARD_E_INVALID_HANDLE,
    SCARD_E_INVALID_PARAMETER,
    SCARD_E_INVALID_VALUE,
    SCARD_E_SERVICE_STOPPED,
    SCARD_E_UNSUPPORTED_FEATURE,
    SCARD_PCI_RAW,
    SCARD_PCI_T0,
    SCARD_PCI_T1,
    SCARD_S_SUCCESS,
)

Result: TypeAlias = list[Any]
"""The return code, and what else there is."""

SENT_AS = {0: SCARD_PCI_RAW, **{pci: pci for pci in (SCARD_PCI_T0, SCARD_PCI_T1, SCARD_PCI_RAW)}}
"""What a send header means. pyscard takes 0 for the protocol in force, as RAW does."""
MAX_NAME = 128
"""Bytes of a name above which it is no reader's."""
CONTROL_BASE = 0x4200_0000
"""pcsc-lite's SCARD_CTL_CODE(0)."""


class error(Exception):
    """pyscard's ``scard.error``: its examples raise it, its functions do not."""


# Contexts -----------------------------------------------------------------------------------------


def SCardEstablishContext(dwScope: int) -> Result:
    """``[hresult, hcontext]``. The scope has no effect."""
    scope = number(dwScope, "dwScope")
    try:
        return [SCARD_S_SUCCESS, manager().establish(scope)]
    except ScardError as failed:
        return [int(failed.code), 0]


def SCardReleaseContext(hcontext: int) -> int:
    """``hresult``. Handles of the context are closed, its calls ended."""
    context = number(hcontext, "hcontext")
    try:
        manager().release(context)
    except ScardError as failed:
        return _closed(failed, context)
    return SCARD_S_SUCCESS


def _closed(failed: ScardError, number: int) -> int:
    """What is to be closed when its manager is gone is closed."""
    if is_stopped(number):
        forget(number)
        return SCARD_S_SUCCESS
    return SCARD_S_SUCCESS if failed.code is ScardCode.E_NO_SERVICE else int(failed.code)


def _code(failed: ScardError, context: int) -> int:
    """What a function with a context is told. pyscard establishes another where the service was
    stopped."""
    is_unknown = failed.code is ScardCode.E_INVALID_HANDLE
    return SCARD_E_SERVICE_STOPPED if is_unknown and is_stopped(context) else int(failed.code)


def SCardIsValidContext(hcontext: int) -> int:
    """``hresult``."""
    is_valid = manager().is_valid(number(hcontext, "hcontext"))
    return SCARD_S_SUCCESS if is_valid else SCARD_E_INVALID_HANDLE


def SCardCancel(hcontext: int) -> int:
    """``hresult``. A SCardGetStatusChange of this context that waits ends; from any thread."""
    context = number(hcontext, "hcontext")
    try:
        manager().cancel(context)
    except ScardError as failed:
        return int(failed.code)
    return SCARD_S_SUCCESS


# Readers ------------------------------------------------------------------------------------------


def SCardListReaders(hcontext: int, readergroups: list[str]) -> Result:
    """``[hresult, [name, …]]``. All readers are in one group: ``readergroups`` has no effect."""
    names(readergroups, "readergroups")
    context = number(hcontext, "hcontext")
    try:
        return [SCARD_S_SUCCESS, manager().list_readers(context)]
    except ScardError as failed:
        return [_code(failed, context), []]


def SCardListReaderGroups(hcontext: int) -> Result:
    """``[hresult, [group, …]]``."""
    if manager().is_valid(number(hcontext, "hcontext")):
        return [SCARD_S_SUCCESS, [READER_GROUP]]
    return [SCARD_E_INVALID_HANDLE, []]


def SCardGetStatusChange(
    hcontext: int,
    dwTimeout: int,
    readerstatelist: list[tuple[str, int] | tuple[str, int, list[int]]],
) -> Result:
    """``[hresult, [(name, eventstate, atr), …]]``, in the order given.

    Args:
        hcontext: The context.
        dwTimeout: Milliseconds; 0 for one look, INFINITE or -1 for ever.
        readerstatelist: ``(name, state)`` or ``(name, state, atr)`` of each reader; the ATR has no
            effect.
    """
    states = reader_states(readerstatelist)
    context, timeout_ms = number(hcontext, "hcontext"), number(dwTimeout, "dwTimeout")
    told = [ReaderState(state.name) for state in states]
    code = SCARD_S_SUCCESS
    if states:
        try:
            code, told = manager().get_status_change(context, timeout_ms, states)
        except ScardError as failed:
            code = _code(failed, context)
    return [int(code), [(state.name, state.event, list(state.atr)) for state in told]]


# Cards --------------------------------------------------------------------------------------------


def SCardConnect(
    hcontext: int, readername: str, dwShareMode: int, dwPreferredProtocols: int
) -> Result:
    """``[hresult, hcard, dwActiveProtocol]``. Waits for another context's transaction."""
    context, name = number(hcontext, "hcontext"), text(readername, "readername")
    share = number(dwShareMode, "dwShareMode")
    protocols = number(dwPreferredProtocols, "dwPreferredProtocols")
    if len(name.encode(errors="surrogatepass")) > MAX_NAME:
        return [SCARD_E_INVALID_VALUE, 0, 0]
    try:
        handle, protocol = manager().connect(context, name, share, protocols)
    except ScardError as failed:
        return [_code(failed, context), 0, 0]
    return [SCARD_S_SUCCESS, handle, protocol]


def SCardReconnect(
    hcard: int, dwShareMode: int, dwPreferredProtocols: int, dwInitialization: int
) -> Result:
    """``[hresult, dwActiveProtocol]``."""
    handle, share = number(hcard, "hcard"), number(dwShareMode, "dwShareMode")
    protocols = number(dwPreferredProtocols, "dwPreferredProtocols")
    initialization = number(dwInitialization, "dwInitialization")
    try:
        return [SCARD_S_SUCCESS, manager().reconnect(handle, share, protocols, initialization)]
    except ScardError as failed:
        return [int(failed.code), 0]


def SCardDisconnect(hcard: int, dwDisposition: int) -> int:
    """``hresult``."""
    handle, disposition = number(hcard, "hcard"), number(dwDisposition, "dwDisposition")
    try:
        manager().disconnect(handle, disposition)
    except ScardError as failed:
        return _closed(failed, handle)
    return SCARD_S_SUCCESS


def SCardBeginTransaction(hcard: int) -> int:
    """``hresult``. Waits for another handle's transaction."""
    handle = number(hcard, "hcard")
    try:
        manager().begin(handle)
    except ScardError as failed:
        return int(failed.code)
    return SCARD_S_SUCCESS


def SCardEndTransaction(hcard: int, dwDisposition: int) -> int:
    """``hresult``."""
    handle, disposition = number(hcard, "hcard"), number(dwDisposition, "dwDisposition")
    try:
        manager().end(handle, disposition)
    except ScardError as failed:
        return int(failed.code)
    return SCARD_S_SUCCESS


def SCardStatus(hcard: int) -> Result:
    """``[hresult, readername, dwState, dwProtocol, atr]``."""
    handle = number(hcard, "hcard")
    try:
        status = manager().status(handle)
    except ScardError as failed:
        return [int(failed.code), "", 0, 0, []]
    return [SCARD_S_SUCCESS, status.name, status.state, status.protocol, list(status.atr)]


def SCardTransmit(hcard: int, pioSendPci: int, apducommand: list[int]) -> Result:
    """``[hresult, response]``: a command APDU to the card.

    Args:
        hcard: The handle.
        pioSendPci: SCARD_PCI_T0, SCARD_PCI_T1 or SCARD_PCI_RAW.
        apducommand: Bytes of the command.
    """
    handle, apdu = number(hcard, "hcard"), byte_list(apducommand, "apducommand")
    protocol = SENT_AS.get(number(pioSendPci, "pioSendPci"))
    if protocol is None or not apdu:
        return [SCARD_E_INVALID_PARAMETER, []]
    try:
        response, _ = manager().transmit(handle, protocol, apdu)
    except ScardError as failed:
        return [int(failed.code), []]
    return [SCARD_S_SUCCESS, list(response)]


# Readers themselves -------------------------------------------------------------------------------


def SCARD_CTL_CODE(code: int) -> int:
    """The control code of a number, as 3400 for CM_IOCTL_GET_FEATURE_REQUEST."""
    if not isinstance(code, int):
        raise TypeError(f"code: an int is expected, not {type(code).__name__}")
    return CONTROL_BASE + code


def SCardControl(hcard: int, dwControlCode: int, inbuffer: list[int]) -> Result:
    """``[hresult, answer]``: a command to the reader."""
    handle, code = number(hcard, "hcard"), number(dwControlCode, "dwControlCode")
    data = byte_list(inbuffer, "inbuffer")
    try:
        return [SCARD_S_SUCCESS, list(manager().control(handle, code, data))]
    except ScardError as failed:
        return [int(failed.code), []]


def SCardGetAttrib(hcard: int, dwAttrId: int) -> Result:
    """``[hresult, value]``: an attribute of the reader."""
    handle, attribute = number(hcard, "hcard"), number(dwAttrId, "dwAttrId")
    try:
        return [SCARD_S_SUCCESS, list(manager().get_attrib(handle, attribute))]
    except ScardError as failed:
        return [int(failed.code), []]


def SCardSetAttrib(hcard: int, dwAttrId: int, ATTRIBUTESIN: list[int]) -> int:
    """``hresult``: sets an attribute of the reader."""
    handle, attribute = number(hcard, "hcard"), number(dwAttrId, "dwAttrId")
    value = byte_list(ATTRIBUTESIN, "ATTRIBUTESIN")
    try:
        manager().set_attrib(handle, attribute, value)
    except ScardError as failed:
        return int(failed.code)
    return SCARD_S_SUCCESS


# A database of readers, which only Windows has ----------------------------------------------------


def _has_no_database(hcontext: int, **given: str) -> int:
    number(hcontext, "hcontext")
    for name, value in given.items():
        text(value, name)
    return SCARD_E_UNSUPPORTED_FEATURE


def SCardIntroduceReader(hcontext: int, readername: str, devicename: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, readername=readername, devicename=devicename)


def SCardForgetReader(hcontext: int, readername: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, readername=readername)


def SCardIntroduceReaderGroup(hcontext: int, groupname: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, groupname=groupname)


def SCardForgetReaderGroup(hcontext: int, groupname: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, groupname=groupname)


def SCardAddReaderToGroup(hcontext: int, readername: str, groupname: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, readername=readername, groupname=groupname)


def SCardRemoveReaderFromGroup(hcontext: int, readername: str, groupname: str) -> int:
    """``SCARD_E_UNSUPPORTED_FEATURE``, as everywhere but on Windows."""
    return _has_no_database(hcontext, readername=readername, groupname=groupname)


# Errors -------------------------------------------------------------------------------------------


def SCardGetErrorMessage(lErrCode: int) -> str:
    """What a return code means."""
    if not isinstance(lErrCode, int):
        raise TypeError(f"lErrCode: an int is expected, not {type(lErrCode).__name__}")
    return error_text(lErrCode)
