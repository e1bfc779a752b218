"""One Chromium and one bridge for all tests of the page; a browser context of its own for each."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from oneweb_bridge.demo import mosquitto
from tests import harness
from tests.fault_bench import EVIDENCE

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

FEATURES_OFF = (
    # Each window would load two pages below its address bar, which cost more than most of ours.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    # What Playwright 1.65 switches off: of two such lists Chromium takes the last one.
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
)
ARGUMENTS = (
    "--no-sandbox",  # as root Chromium refuses to start with its sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    f"--disable-features={','.join(FEATURES_OFF)}",
)
TIMEOUT_MS = 15_000
TRIES = 600
REPORTS_S = 3600.0
"""How far back the API's reports reach: `explore` reads them all."""


class Console:
    """A bridge with its console, and the world around it."""

    def __init__(self, world: harness.World, directory: Path, **changes: Any) -> None:
        self.world = world
        port = mosquitto.free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.config = harness.bridge_yaml(
            directory, world.api.url, world.port, http={"listen": f"127.0.0.1:{port}"}, **changes
        )

    async def get(self, path: str, **headers: str) -> Any:
        """What the API answers to a script on this host."""
        address = f"{self.url}api/v1/{path}"
        async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
            return await answer.json()

    async def until_it_answers(self, process: harness.Process) -> None:
        """Waits until the console is there, whatever it knows."""
        for _ in range(TRIES):
            with contextlib.suppress(aiohttp.ClientError):
                await self.get("session")
                return
            assert process.returncode is None, process.text()
            await asyncio.sleep(0.1)
        raise AssertionError(f"the console did not answer: {process.text()[-2000:]}")

    async def until_polled(self, process: harness.Process, **headers: str) -> None:
        """Waits until every enabled call was polled once."""
        calls: list[Any] = []
        ready: dict[str, Any] = {}
        for _ in range(TRIES):
            try:
                # A query of a busy machine may be answered with 503; a command before the subscription is lost.
                calls = (await self.get("calls", **headers)).get("calls", [])
                ready = (await self.get("bridge", **headers)).get("ready", {})
            except aiohttp.ClientError:
                assert process.returncode is None, process.text()
            if ready.get("broker") and calls and all(call.get("last_success") or not call["enabled"] for call in calls):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not all calls were polled: {calls}\n{process.text()[-2000:]}")


class Tab:
    """A page of the browser, what it asked for, and what it complained of."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self._expected: tuple[str, ...] = ()
        self.requests: list[str] = []
        page.on("console", lambda message: self._complain(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self._complain(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self._expected):
            self.complaints.append(text)

    def expect(self, *parts: str) -> None:
        """Complaints with one of these parts are none: those so far, and those that are still on their way."""
        self._expected = parts
        self.complaints = [text for text in self.complaints if not any(part in text for part in parts)]

    async def open(self, address: str = "", name: str | None = None) -> None:
        """Opens the page at `#/address`, and waits until its data are drawn."""
        await self.page.goto(f"{self.url}#/{address}")
        await self.ready(name or address.partition("?")[0].partition("/")[0] or "fleet")

    async def hold_live(self) -> None:
        """From the next page on nothing comes by the live stream: what is drawn stays, while the fleet goes on."""
        await self.page.route("**/api/v1/live*", lambda _: None)

    async def open_and_read(self, address: str, name: str, *paths: str) -> list[Any]:
        """Opens a page that stays as it is drawn. Returns what the API answered it below each of the paths.

        What a test compares with the page is what the page was given: the next reading may be of the next poll.
        """
        await self.hold_live()
        async with contextlib.AsyncExitStack() as stack:
            waiting = [await stack.enter_async_context(self._answer(path)) for path in paths]
            await self.open(address, name)
        return [await (await answer.value).json() for answer in waiting]

    def _answer(self, path: str) -> Any:
        return self.page.expect_response(lambda response: response.url.startswith(f"{self.url}api/v1/{path}"))

    async def ready(self, name: str) -> None:
        """Waits until the page of this name has drawn its data."""
        await self.page.wait_for_selector(f"main[data-page={name}][data-ready]")

    async def until(self, script: str, argument: Any = None) -> None:
        """Waits until the script is true in the page."""
        await self.page.wait_for_function(script, arg=argument)

    async def keep(self, name: str) -> None:
        """Leaves in build/evidence what the page shows, asked for and complained of: a failure may not come again."""
        EVIDENCE.mkdir(parents=True, exist_ok=True)
        shown = await self.page.locator("body").inner_text()
        parts = [self.page.url, shown, "", *self.complaints, "", *self.requests]
        (EVIDENCE / f"{name}.txt").write_text("\n".join(parts), encoding="utf-8")
        await self.page.screenshot(path=EVIDENCE / f"{name}.png")

    @property
    def other_hosts(self) -> list[str]:
        """The requests that did not go to the console."""
        return [address for address in self.requests if not address.startswith((self.url, "data:", "blob:"))]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator["Browser"]:
    """Debian's Chromium, or a skip that says how to get it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        # `make test-console` installs it, and .ci/run calls that: only a bare `pytest -m browser` comes here.
        pytest.skip("no chromium: `sh deploy/setup.sh console` installs it")
    playwright = pytest.importorskip("playwright.async_api", reason="no playwright: `sh deploy/setup.sh console`")
    async with playwright.async_playwright() as started:
        launched = await started.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield launched
        await launched.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def console(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Console]:
    """A fleet of eight, polled completely."""
    directory = tmp_path_factory.mktemp("console")
    async with harness.world(directory, terminals=8, start=None, report_period=0.02, keep=REPORTS_S) as world:
        console = Console(world, directory)
        async with harness.running(console.config) as process:
            await console.until_polled(process)
            yield console


OpenTab = Callable[..., Awaitable[Tab]]
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, Any]:
    """Notes for the fixtures of a test that it failed."""
    report = yield
    item.stash[FAILED] = call.when == "call" and report.failed
    return report


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(browser: "Browser", request: pytest.FixtureRequest) -> AsyncIterator[OpenTab]:
    """Makes tabs with a context of their own. At the end none may have complained or asked another host."""
    tabs: list[Tab] = []

    async def make(url: str, width: int = 1280, height: int = 800, **options: Any) -> Tab:
        context = await browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(TIMEOUT_MS)
        tabs.append(Tab(await context.new_page(), url))
        return tabs[-1]

    yield make
    for number, tab in enumerate(tabs if request.node.stash[FAILED] else ()):
        await tab.keep(f"{request.node.originalname}-{number}")
    for tab in tabs:
        # An answer that is being made is not missed by a page that closes, and would fail the next test.
        if not tab.page.is_closed():
            await tab.page.unroute_all(behavior="ignoreErrors")
        await tab.page.context.close()
        assert tab.complaints == []
        assert tab.other_hosts == []


@pytest_asyncio.fixture(loop_scope="session")
async def tab(open_tab: OpenTab, console: Console) -> Tab:
    """A tab on a desk."""
    return await open_tab(console.url)
