"""Waiting for others who use a destination."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

_log = logging.getLogger("oneroster_source")
_PAUSE = 0.2
_T = TypeVar("_T")


class InUse(Exception):
    """Somebody else uses what is needed; the message says who, or why it cannot be had."""


def retry_while_in_use(action: Callable[[], _T], patience: float, warning: str = "") -> _T:
    """Calls a function until it no longer raises `InUse`.

    Args:
        action: What to call.
        patience: Seconds after which to give up.
        warning: Logged once, if there is a wait, followed by who is waited for, and how long.

    Raises:
        InUse: The last one, where the patience ran out.
    """

    def warn(state: RetryCallState) -> None:
        if warning and state.attempt_number == 1 and state.outcome is not None:
            _log.warning("%s %s: waiting up to %g s", warning, state.outcome.exception(), patience)

    return Retrying(
        retry=retry_if_exception_type(InUse),
        stop=stop_after_delay(patience),
        wait=wait_fixed(_PAUSE),
        before_sleep=warn,
        reraise=True,
    )(action)
