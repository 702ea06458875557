"""What ``async with`` begins and ends: as a file that is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T", bound=AbstractAsyncContextManager[Any, None])


class Ending(ABC):
    """Something that ``async with`` ends."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            self._forget()
        else:
            await self._leave(error)

    @abstractmethod
    async def _leave(self, error: BaseException | None) -> None:
        """End it.

        Args:
            error: What ended the block before; None if nothing did.
        """

    def _forget(self) -> None:  # noqa: B027 - most need not do anything
        """End it in a coroutine that is thrown away, which may await nothing."""


class Opening(AbstractAsyncContextManager[T, None], Generic[T]):
    """Something that begins: ``x = await …``, or ``async with … as x:``, which also ends it.

    Nothing is done before that. Each ``await`` begins anew.

    Args:
        begin: Makes the coroutine that begins it.
    """

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._begin = begin
        self._begun: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begin().__await__()

    async def __aenter__(self) -> T:
        self._begun = await self._begin()
        return self._begun

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._begun is not None
        await self._begun.__aexit__(kind, error, traceback)
