"""Signing in: hello at the start, after new credentials and at its interval; and how the API is, for people."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Literal

from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import ApiError, RateLimited, Unauthorized
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.backoff import BackOff
from oneweb_bridge.model.status import ApiState
from oneweb_bridge.polling import schedule

_log = logging.getLogger("oneweb_bridge.poller")

HELLO_RETRY_S = (2.0, 300.0)
"""Shortest and longest pause between two tries to sign in while the API cannot be reached."""
MIN_HELLO_PAUSE_S = 60.0
"""A call that was refused lets hello be asked again, but not sooner than this."""


class SignIn:
    """`loop` keeps the bridge signed in. `config` is the configuration in force."""

    def __init__(self, api: ApiClient, config: Config, clock: Clock, on_signed_in: Callable[[], None]) -> None:
        self.config = config
        self.state = ApiState("unreachable", rfc3339(clock.now()), error="not asked yet")
        self._api = api
        self._clock = clock
        self._on_signed_in = on_signed_in
        self._wanted = asyncio.Event()
        self._clocks_differ = False
        self.is_signed_in = False
        """Whether the last hello that was answered was accepted: before the first one, nothing is polled."""
        self._renewed_at = -math.inf

    def request(self) -> None:
        """Asks for hello: a call was refused, or the credentials have changed."""
        self._wanted.set()

    async def loop(self) -> None:
        """Signs in, and asks again at the interval of hello to tell how the API is. Never returns."""
        pauses = BackOff(*HELLO_RETRY_S)
        while True:
            self._wanted.clear()
            try:
                await self.sign_in()
                pause = self.config.api.hello.interval
                pauses.reset()
            except Unauthorized as error:
                _log.error("hello: %s; polling waits for other credentials", error)
                pause = schedule.UNAUTHORIZED_RETRY_S
            except RateLimited as error:
                pause = error.pause
            except ApiError as error:
                pause = pauses.pause()
                _log.warning("hello: %s; next try in %.0f s", error, pause)
            await self._wait_until_due(pause)

    async def _wait_until_due(self, pause: float) -> None:
        """Returns after `pause`, or sooner when hello was requested, but not before `MIN_HELLO_PAUSE_S`."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(pause):
                await self._wanted.wait()
                await asyncio.sleep(max(0.0, min(MIN_HELLO_PAUSE_S, pause) - (time.monotonic() - begun)))
        except TimeoutError:
            return

    async def sign_in(self) -> None:
        """One hello. Raises ApiError."""
        try:
            await self._api.hello()
        except Unauthorized as error:
            self.note_reached("unauthorized", str(error))
            self.is_signed_in = False
            raise
        except ApiError as error:
            if not isinstance(error, RateLimited):
                self.note_reached("unreachable", str(error))
            raise
        self.note_reached("ok", None, hello=True)
        self._compare_clocks()
        if not self.is_signed_in:
            _log.info("hello: signed in at %s", self.config.api.base_url)
            self.is_signed_in = True
            self._on_signed_in()

    async def renew(self, failed_at: float) -> None:
        """A new sign-in, unless there was one since `failed_at` (monotonic time). Raises ApiError.

        For a poll that somebody asks for after one that failed or was refused: what was wrong may be mended.
        """
        if self._renewed_at < failed_at:
            begun = time.monotonic()
            self._api.forget_token()
            await self.sign_in()
            self._renewed_at = begun

    def _compare_clocks(self) -> None:
        """Logs when the API's clock and the host's begin to differ."""
        ahead = (self._api.now() - self._clock.now()) / 1000
        differ = abs(ahead) > self.config.api.clock_tolerance
        if differ and not self._clocks_differ:
            direction = "ahead of" if ahead > 0 else "behind"
            _log.warning("the API's clock is %.0f s %s this machine's: one of them is wrong", abs(ahead), direction)
        self._clocks_differ = differ

    def note_reached(
        self, state: Literal["ok", "unauthorized", "unreachable"], error: str | None, *, hello: bool = False
    ) -> None:
        """Notes how the API answered last, or that it did not."""
        now, before = rfc3339(self._clock.now()), self.state
        since = before.since if before.state == state else now
        error = None if error is None else self._api.masks.mask_text(error)
        self.state = ApiState(state, since, now if hello else before.hello_at, error)
