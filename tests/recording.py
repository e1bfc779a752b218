"""What a recorder's file says, and what of it is to be judged. Pure, but for `subscribed`, which runs a recorder."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from tests import harness
from tests.cancelling import cancel_until_done


class Line(msgspec.Struct, omit_defaults=True, frozen=True):
    """A message, or a `note`: connected (with or without the session of before), subscribed, lost. Times in s."""

    at: float
    topic: str = ""
    payload: bytes = b""
    retain: bool = False
    dup: bool = False
    note: str = ""
    session: bool = False


class Taken(msgspec.Struct, frozen=True):
    """A message of the bridge that the broker acknowledged, and when, in s."""

    at: float
    topic: str
    payload: bytes
    retain: bool


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be judged. `sessions` counts how often the bridge connected, as far as it was heard of."""

    received: list[tuple[str, bytes, bool]]
    forgotten: int
    repeats: int
    sessions: int


class _Story:
    """Puts together what a subscriber got; see `replay`."""

    def __init__(self, taken: Sequence[Taken], base: str, *, may_forget: bool) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self.forgotten = self.repeats = 0
        self.nonces: set[str] = set()
        self._taken = taken if may_forget else ()
        # By the clock of this machine; that of the bridge, which the probe carries, may be wrong.
        self._probed_at = {message.payload: message.at for message in taken if message.topic == f"{base}/bridge/probe"}
        self._probe = f"{base}/bridge/probe"
        self._known: set[tuple[str, bytes]] = set()
        self._back_at: float | None = None
        """Since when the broker speaks from its memory; None while it does not."""

    def note(self, line: Line) -> None:
        """The recorder has connected again: the broker was away."""
        if line.note == "connected" and self._known:
            self._back_at = line.at

    def hear(self, line: Line) -> None:
        """One message."""
        content = (line.topic, line.payload)
        if line.topic == self._probe:
            self._hear_probe(line.payload)
        elif self._back_at is not None and content in self._known:
            return
        self.repeats += content in self._known and ("/event/" in line.topic or "/history/" in line.topic)
        self._take(line.topic, line.payload, retain=line.retain)

    def _hear_probe(self, payload: bytes) -> None:
        probe = msgspec.json.decode(payload)
        self.nonces.add(probe["nonce"])
        sent_at = self._probed_at.get(payload)
        if sent_at is None:
            sent_at = _seconds(probe.get("time", "1970-01-01T00:00:00Z"))
        if self._back_at is None or sent_at < self._back_at:
            return
        for publish in self._taken:
            if publish.at < self._back_at and (publish.topic, publish.payload) not in self._known:
                self._take(publish.topic, publish.payload, retain=publish.retain)
                self.forgotten += 1
        self._back_at = None

    def _take(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._known.add((topic, payload))
        self.received.append((topic, payload, retain))


def replay(
    lines: Iterable[Line], taken: Sequence[Taken] = (), base: str = "oneweb", *, may_forget: bool = True
) -> Replayed:
    """What a subscriber got, with what its broker forgot put where it was forgotten.

    When a broker comes back, it speaks from its own memory until the first probe that the bridge sends
    after that: what it repeats then is not the bridge's doing. What it had acknowledged to the bridge
    before, and never gave to the subscriber, the broker has lost; it is put in at that place, in the
    order in which it was sent, because the bridge had done its part; without `may_forget` it is missing.
    """
    story = _Story(taken, base, may_forget=may_forget)
    for line in lines:
        if line.note:
            story.note(line)
        else:
            story.hear(line)
    return Replayed(
        received=story.received, forgotten=story.forgotten, repeats=story.repeats, sessions=len(story.nonces)
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Recording(harness.Recorder):
    """What one recorder has written so far. `lines` has its notes too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._path = path
        self._at = 0
        self._decoder = msgspec.json.Decoder(Line)

    def read(self) -> None:
        """Takes what is new in the file."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        for line in self._decoder.decode_lines(data):
            self.lines.append(line)
            if not line.note:
                self.take(line.topic, line.payload, retain=line.retain)
        if data:
            self.arrived.set()

    async def follow(self) -> None:
        """Reads the file as it grows, until it is cancelled."""
        while True:
            self.read()
            await asyncio.sleep(0.03)

    async def subscribed(self, patience: float = 20.0) -> None:
        """Waits until the recorder has a subscription on the connection that it has now."""
        await self.until(lambda: [line.note for line in self.lines if line.note][-1:] == ["subscribed"], patience)


@contextlib.asynccontextmanager
async def subscribed(port: int, directory: Path, *filters: str) -> AsyncIterator[Recording]:
    """A recorder of `filters` (default: everything below oneweb and homeassistant) while the block runs."""
    path = directory / "recorder.jsonl"
    path.touch(0o600)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.recorder", str(port), str(path), f"recorder-{port}", *filters
    )
    recording = Recording(path)
    follower = asyncio.create_task(recording.follow(), name="recording")
    try:
        await recording.subscribed()
        yield recording
    finally:
        process.kill()
        await process.wait()
        await cancel_until_done(follower)
        with contextlib.suppress(asyncio.CancelledError):
            await follower
