"""Row 18: the console's page in Debian's Chromium, with the bridge of row 17 behind it, on loopback.

What is said to be on a slower CPU is with Chromium's own throttling, which lets the page run a quarter of the time.
Without a Chromium the rows say so.
"""

import asyncio
import contextlib
import random
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from typing import Any

import aiohttp
import msgspec

from bench import fleet
from bench.clock import quantile
from bench.console_rows import cycle_row, memory_row
from bench.progress import say
from bench.scope import Scope, spelled
from bench.stage import EVENTS, PASSED_S, Stage
from bench.subscriber import subscribe
from bench.table import Row, of_rounds
from bench.tabs import TABS, delays
from tests.console.conftest import ARGUMENTS

NUMBER = "18"
ROUNDS = 3
TAB_ROUNDS = 2
"""Cycles with tabs of a real Chromium, each beside one without."""
SLOWER = 4
HEADS = ("name", "state", "sinr_db", "link_availability_pct", "used_pct", "exhausted_ts", "seen_ts")
FRAMES = 120
FILTERED = 3
POLLS = 20
RENAMED = 5
"""Terminals that are renamed before each of these polls."""
WARMING = 3
"""Times that everything is polled before the growth of the heap is measured, `PASSED_S` apart."""
LIVE_STEP_S = 60.0
"""Simulated seconds between two polls of the live stretch."""
SCRIPT_TIMEOUT_S = 120.0
INSTALL = "`sh deploy/setup.sh console` installs it"
GOALS: dict[str, tuple[str, float, float]] = {
    "paint": ("first contentful paint", 250.0, 500.0),
    "seen": ("rows to be seen", 800.0, 2000.0),
    "sort": ("sorted by another column, the slowest", 100.0, 300.0),
    "filter": ("filtered, and the filter taken back, the slowest", 100.0, 300.0),
    "frame": ("frame while scrolling, p95", 25.0, 120.0),
}
"""Measure -> what it is, and its budget in ms, on this CPU and on a slower one."""

NOTE_ROWS = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('[data-testid=fleet-row]')) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.rowsSeenAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
LOADED = """() => [performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null, window.rowsSeenAt]"""
WEIGHTS = """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .filter(entry => !entry.name.includes('/api/')).map(entry => [entry.name, entry.encodedBodySize])"""
SORT = """async name => {
  const head = document.querySelector(`[data-head=${name}]`);
  const before = head.getAttribute('aria-sort'), begun = performance.now();
  head.querySelector('button').click();
  do await new Promise(requestAnimationFrame); while (head.getAttribute('aria-sort') === before);
  await new Promise(done => setTimeout(done));
  return performance.now() - begun;
}"""
FILTER = """async number => {
  const field = document.querySelector('input[type=search]'), table = document.querySelector('[role=table]');
  const type = async text => {
    const before = table.getAttribute('aria-rowcount'), begun = performance.now();
    field.value = text;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    do await new Promise(requestAnimationFrame); while (table.getAttribute('aria-rowcount') === before);
    await new Promise(done => setTimeout(done));
    return performance.now() - begun;
  };
  const text = document.querySelectorAll('[data-testid=fleet-row]')[number].dataset.id;
  const there = await type(text);
  return Math.max(there, await type(''));
}"""
SCROLL = """async count => {
  const frames = [];
  let before = performance.now();
  for (let i = 0; i < count; i += 1) {
    scrollBy(0, 300);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - before);
    before = now;
  }
  scrollTo(0, 0);
  return frames;
}"""
SPIN = """() => {
  const begun = performance.now();
  let sum = 0;
  for (let i = 0; i < 2e7; i += 1) sum = (sum * 31 + i) | 0;
  return performance.now() - begun + (sum === 0.5 ? 1 : 0);
}"""
NOTE_EVENTS = """() => {
  window.eventsAt = [];
  new MutationObserver(records => {
    const now = performance.timeOrigin + performance.now();
    for (const node of records.flatMap(record => [...record.addedNodes])) {
      const link = node.querySelector?.('a');
      if (node.dataset?.testid === 'event') window.eventsAt.push([link.hash.split('/')[2], now / 1000]);
    }
  }).observe(document.querySelector('ol.events') ?? document.querySelector('main'), { childList: true, subtree: true });
}"""


class NoChromium(Exception):
    """There is no Chromium, or nothing that drives it; the text says what to do."""


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A browser. Raises NoChromium."""
    program = shutil.which("chromium")
    if program is None:
        raise NoChromium(f"there is no chromium: {INSTALL}")
    try:
        playwright = import_module("playwright.async_api")
    except ImportError:
        raise NoChromium(f"there is no playwright: {INSTALL}") from None
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


class Shown:
    """An open page."""

    def __init__(self, page: Any, session: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self._session = session
        page.on("request", lambda request: self.requests.append(request.url))

    async def run(self, script: str, argument: Any = None) -> Any:
        """What a script gives. Raises TimeoutError for one that does not end."""
        async with asyncio.timeout(SCRIPT_TIMEOUT_S):
            return await self.page.evaluate(script, argument)

    async def cpu(self) -> float:
        """Milliseconds of CPU that the page's main thread has used so far."""
        metrics = (await self._session.send("Performance.getMetrics"))["metrics"]
        return next(1000 * float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    async def timed(self, script: str, argument: Any = None) -> tuple[float, float]:
        """The milliseconds that a script gives, and those of CPU that went by meanwhile."""
        before = await self.cpu()
        took = float(await self.run(script, argument))
        return took, await self.cpu() - before

    async def heap(self) -> float:
        """MiB that the page's JavaScript holds after collecting garbage."""
        for _ in range(2):
            await self._session.send("HeapProfiler.collectGarbage")
        used = await self._session.send("Runtime.getHeapUsage")
        return float(used["usedSize"]) / 2**20


@contextlib.asynccontextmanager
async def _open_page(browser: Any, url: str, address: str = "", slower: int = 1) -> AsyncIterator[Shown]:
    """A page in a context of its own, that is with an empty cache, once its data are drawn."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        context.set_default_timeout(1000 * SCRIPT_TIMEOUT_S)
        page = await context.new_page()
        session = await context.new_cdp_session(page)
        await session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
        await session.send("Performance.enable", {"timeDomain": "threadTicks"})
        await page.add_init_script(NOTE_ROWS)
        shown = Shown(page, session)
        await page.goto(f"{url}#/{address}")
        await page.wait_for_selector(f"main[data-page={address or 'fleet'}][data-ready]")
        if not address:
            await page.wait_for_function("() => window.rowsSeenAt > 0")
        yield shown
    finally:
        await context.close()


async def rows(scope: Scope, stage: Stage) -> AsyncIterator[Row]:
    """Row 18, and of row 17 what real tabs cost."""
    try:
        async with chromium() as browser:
            if "17" in scope.rows:
                for row in await _tab_rows(stage, browser):
                    yield row
            if NUMBER in scope.rows:
                yield await _event_row(stage, browser)
                for slower in (1, SLOWER):
                    for row in await _timed_rows(scope, stage, browser, slower):
                        yield row
                async for row in _heap_rows(scope, stage, browser):
                    yield row
    except NoChromium as missing:
        for number in ("17", NUMBER):
            yield Row(number=number, what="in Chromium", trouble=str(missing))


# ── real tabs ──────────────────────────────────────────────────────────────────────────────────


async def _tab_rows(stage: Stage, browser: Any) -> list[Row]:
    """Cycles with real tabs and without, in turn: browser and bridge share the machine, so CPU is what is compared."""
    alone, watched = [], []
    streams = fleets = 0
    for number in range(TAB_ROUNDS):
        alone.append(await stage.cycle())
        async with contextlib.AsyncExitStack() as stack:
            tabs = [await stack.enter_async_context(_open_page(browser, stage.url)) for _ in range(TABS)]
            for tab in tabs:
                tab.requests.clear()
            watched.append(await stage.cycle())
            urls = [url for tab in tabs for url in tab.requests]
        streams += sum("/live" in url for url in urls)
        fleets += sum("/fleet" in url for url in urls)
        say(f"page: cycle {number + 1}: {alone[-1].cpu:.1f} CPU s, with tabs {watched[-1].cpu:.1f} CPU s")
    what = f"the same with {TABS} tabs of a real Chromium, CPU of the bridge"
    row = cycle_row(what, alone, watched)
    lag = quantile([lag for cycled in watched for lag in cycled.lags], 0.99)
    note = (
        f"wall time {row.measured:.2f} x, on the cores that the browser needs too; the tabs came back {streams} times "
        f"and asked {fleets} times for the fleet; lag p99 {lag:.0f} ms"
    )
    cpu = [after.cpu / before.cpu for before, after in zip(alone, watched, strict=True)]
    row = of_rounds(msgspec.structs.replace(row, cpu=None, note=note), cpu)
    what = f"memory in a cycle with {TABS} tabs of a real Chromium, above that without"
    return [row, memory_row(what, alone, watched)]


# ── an event ───────────────────────────────────────────────────────────────────────────────────


async def _event_row(stage: Stage, browser: Any) -> Row:
    """From the event at a subscriber to its line on the open page of events; single polls at any time."""
    chance = random.Random(1)
    async with (
        _open_page(browser, stage.url, "events") as shown,
        subscribe(stage.run.port, EVENTS, noting=True) as events,
        aiohttp.ClientSession() as http,
    ):
        imeis = await _some_terminals(http, stage.url)
        # Both clocks run at the same pace; this is what lies between them.
        offset = time.time() - time.perf_counter()
        await shown.run(NOTE_EVENTS)
        for number in range(POLLS):
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            for imei in chance.sample(imeis, min(RENAMED, len(imeis))):
                await _rename(http, stage.api_url, imei, f"Vessel of poll {number}")
            await stage.run.tell("user_terminals", "poll")
        await asyncio.sleep(2.0)
        at_page = [(imei, at - offset) for imei, at in await shown.run("() => window.eventsAt")]
        late = delays([(topic.split("/")[2], at) for topic, at in events.arrivals], at_page)
    assert len(late) >= 0.9 * POLLS * min(RENAMED, len(imeis)), f"{len(late)} events came to the page"
    note = f"{len(late)} events of {POLLS} polls; median {statistics.median(late):.0f} ms, largest {max(late):.0f} ms"
    what = "event on the open page after the same at a subscriber, p99"
    return Row(number=NUMBER, what=what, unit="ms", goal=500.0, measured=quantile(late, 0.99), note=note)


async def _some_terminals(http: aiohttp.ClientSession, url: str) -> list[str]:
    async with http.get(f"{url}api/v1/fleet") as answer:
        return [row[0] for row in (await answer.json())["rows"][:200]]


async def _rename(http: aiohttp.ClientSession, api_url: str, imei: str, name: str) -> None:
    change = {"op": "rename", "id": imei, "name": name}
    async with http.post(f"{api_url}/_control/fleet", json=change) as answer:
        answer.raise_for_status()


# ── loading, sorting, scrolling ────────────────────────────────────────────────────────────────


class Timed(msgspec.Struct, frozen=True):
    """One page that was opened and used: by the names of GOALS the ms of wall time, and where known those of CPU.

    `weights` are the bytes of its files as they were sent, `spin` the ms of a loop of arithmetic.
    """

    wall: dict[str, float]
    cpu: dict[str, float]
    spin: float
    weights: list[tuple[str, int]]


async def _timed(browser: Any, url: str, slower: int) -> Timed:
    async with _open_page(browser, url, slower=slower) as shown:
        loaded = await shown.cpu()
        paint, seen = await shown.run(LOADED)
        weights = await shown.run(WEIGHTS)
        sort = max([await shown.timed(SORT, name) for name in HEADS for _ in range(2)])
        filtered = max([await shown.timed(FILTER, number) for number in range(FILTERED)])
        before = await shown.cpu()
        frames = await shown.run(SCROLL, FRAMES)
        frame = (await shown.cpu() - before) / FRAMES
        return Timed(
            {"paint": paint, "seen": seen, "sort": sort[0], "filter": filtered[0], "frame": quantile(frames, 0.95)},
            {"seen": loaded, "sort": sort[1], "filter": filtered[1], "frame": frame},
            await shown.run(SPIN),
            weights,
        )


async def _timed_rows(scope: Scope, stage: Stage, browser: Any, slower: int) -> list[Row]:
    timed = [await _timed(browser, stage.url, slower) for _ in range(min(scope.rounds, ROUNDS))]
    terminals = spelled(scope.of(10_000))
    suffix = f", CPU {slower} x slower" if slower > 1 else ""
    rows = weight_rows(timed[-1].weights) if slower == 1 else []
    for name, (words, *goals) in GOALS.items():
        row = Row(number=NUMBER, what=f"{words}, {terminals} terminals{suffix}", unit="ms", goal=goals[slower > 1])
        cpu = [each.cpu[name] for each in timed if name in each.cpu]
        rows.append(of_rounds(row, [each.wall[name] for each in timed], cpu))
    spin = statistics.median(each.spin for each in timed)
    rows[-1] = msgspec.structs.replace(rows[-1], note=f"a loop of arithmetic took {spin:.0f} ms in the page")
    return rows


def weight_rows(weights: Sequence[tuple[str, int]]) -> list[Row]:
    """What a browser loads before the fleet is there, without the data."""
    vendored = sum(size for name, size in weights if "/vendor/" in name) / 1000
    own = sum(size for _, size in weights) / 1000 - vendored
    note = f"{len(weights)} files, {own + vendored:.1f} kB"
    return [
        Row(number=NUMBER, what="own files of the first page, as sent", unit="kB", goal=40.0, measured=own, note=note),
        Row(number=NUMBER, what="vendored files of the first page, as sent", unit="kB", goal=40.0, measured=vendored),
    ]


# ── what the page holds ────────────────────────────────────────────────────────────────────────


async def _heap_rows(scope: Scope, stage: Stage, browser: Any) -> AsyncIterator[Row]:
    terminals = spelled(scope.of(10_000))
    async with _open_page(browser, stage.url) as shown:
        loaded = await shown.heap()
        yield Row(number=NUMBER, what=f"JS heap with {terminals} terminals", unit="MiB", goal=20.0, measured=loaded)
        # Rows that were loaded share their texts, and each has its own from its first change on: that comes once.
        for _ in range(WARMING):
            await _poll_later(stage, PASSED_S)
        before = await shown.heap()
        count = await _live(stage, scope.live)
        after = await shown.heap()
    note = (
        f"{before:.2f} to {after:.2f} MiB over {count} times two polls, each {LIVE_STEP_S:.0f} simulated seconds later"
    )
    what = f"JS heap after {scope.live:.0f} s live, growth"
    yield Row(number=NUMBER, what=what, unit="MiB", goal=1.0, measured=after - before, note=note)


async def _live(stage: Stage, seconds: float) -> int:
    """Polls terminals and a report, at least twice, for so many seconds. Returns how often."""
    deadline, count = time.monotonic() + seconds, 0
    while count < 2 or time.monotonic() < deadline:
        await _poll_later(stage, LIVE_STEP_S)
        count += 1
    return count


async def _poll_later(stage: Stage, seconds: float) -> None:
    """Polls terminals and a report when so many simulated seconds have passed."""
    await fleet.advance(stage.api_url, seconds)
    for call in ("user_terminals", "ut_signal_quality"):
        await stage.run.poll(call)
