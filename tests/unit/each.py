"""One test for hundreds of small cases: pytest takes longer for a test than such a case does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

Cases = Iterable[Any] | Callable[[], Iterable[Any]]
"""Or a function that makes them, when the test runs and not already when it is collected."""


def each(**named: Cases) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The decorated function is checked with each of these arguments, in one test. Its other
    arguments are fixtures, which all cases share.

    Each failure is told, with its case, and none hides the others.
    """
    ((argument, cases),) = named.items()

    def decorated(check: Callable[..., None]) -> Callable[..., None]:
        def test(**fixtures: Any) -> None:
            count, wrong = 0, []
            for count, case in enumerate(cases() if callable(cases) else cases, 1):  # noqa: B007
                try:
                    check(**{argument: case}, **fixtures)
                except Exception as error:
                    error.add_note(f"{argument}: {case!r:.200}")
                    wrong.append(error)
            assert count, f"no {argument}"
            if wrong:
                first = "; ".join(error.__notes__[-1] for error in wrong[:5])
                raise ExceptionGroup(f"{len(wrong)} of {count} are wrong: {first}", wrong[:5])

        signature = inspect.signature(check)
        others = [one for name, one in signature.parameters.items() if name != argument]
        test.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        test.__qualname__, test.__module__ = check.__qualname__, check.__module__
        return test

    return decorated
