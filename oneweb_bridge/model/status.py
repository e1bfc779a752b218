"""What is published about the bridge itself, as structs; the AsyncAPI document is made of the same ones. Pure.

A member that is None is left out, because what is not known is absent and never null. The notes on
the members carry units, bounds and an example each, which only the document reads.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from oneweb_bridge.model.records import Status

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$"
"""Every time that is published: RFC 3339 in UTC, with milliseconds where they are known."""


def _integer(about: str, example: int, unit: str = "") -> Meta:
    return Meta(
        ge=0,
        description=about,
        examples=[example],
        extra_json_schema={"format": "int64"} | ({"x-unit": unit} if unit else {}),
    )


def _time(about: str, example: str = "2025-06-17T14:15:02.113Z") -> Meta:
    return Meta(pattern=TIME, description=about, examples=[example], extra_json_schema={"format": "date-time"})


def _text(about: str, *examples: Any) -> Meta:
    return Meta(description=about, examples=list(examples) or None)


CallName = Annotated[str, _text("a call of the polling manager", "user_terminals")]


class Connection(msgspec.Struct, frozen=True):
    """Whether the bridge is connected; when the connection is lost, the broker publishes offline."""

    state: Literal["online", "offline"]


class ApiState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of the API, in `bridge/info`."""

    state: Literal["ok", "unauthorized", "unreachable"]
    since: Annotated[str, _time("since when the state holds")]
    hello_at: Annotated[str, _time("when the API last accepted the credentials")] | None = None
    error: Annotated[str, _text("why the state is not ok")] | None = None


class JournalState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of the journal, in rows."""

    head: Annotated[int, _integer("the last row", 2853)]
    published: Annotated[int, _integer("the last row that the broker acknowledged", 2850)]
    backlog: Annotated[int, _integer("rows that wait, and messages whose class of topics is refused", 3)]
    dropped: Annotated[int, _integer("rows ever dropped because they waited too long", 0)]
    dead: Annotated[int, _integer("rows ever set aside because the broker refused them", 0)]
    owed: Annotated[int, _integer("retained topics that are not right on the broker, and are tried again", 0)]
    error: Annotated[str, _text("why the last write to the database failed")] | None = None


class Cost(msgspec.Struct, frozen=True):
    """The interval of a call that was set, the one in force, and its cost in requests."""

    interval: Annotated[int, _integer("the interval that was set", 300, "s")]
    effective_interval: Annotated[int, _integer("the interval in force", 300, "s")]
    requests_per_hour: Annotated[int, _integer("requests an hour at this interval", 12, "1/h")]


class ServerInUse(msgspec.Struct, frozen=True):
    """The broker that the bridge uses, of several that are configured."""

    server: Annotated[str, _text("host and port", "broker-b.example.net:1883")]
    since: Annotated[str, _time("when the bridge connected there")]


class Info(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of the bridge: version, API, journal, and the cost of each call. `broker` only with several servers."""

    version: Annotated[str, _text("version of the bridge", "0.1.0")]
    contract: Annotated[int, _integer("version of topics and payloads", 1)]
    instance: Annotated[str, _text("name of the bridge", "main")]
    started_at: Annotated[str, _time("when the bridge was started")]
    api: ApiState
    journal: JournalState
    calls: dict[CallName, Cost]
    broker: ServerInUse | None = None
    epoch: Annotated[int, _integer("grows with each worker that takes over; with PostgreSQL", 3)] | None = None
    worker: Annotated[str, _text("the worker that runs this bridge; with PostgreSQL", "host-a")] | None = None


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last journal row that this broker acknowledged; only the bridge needs it."""

    journal: Annotated[str, _text("id of the database", "1bf44f91fcc37727")]
    instance: Annotated[str, _text("name of the bridge", "main")]
    seq: Annotated[int, _integer("the last row that the broker acknowledged", 2850)]
    epoch: Annotated[int, _integer("grows with each worker that takes over; with PostgreSQL", 3)] | None = None


class Probe(msgspec.Struct, frozen=True, omit_defaults=True):
    """Published and read back at connect, to prove that the broker delivers what it acknowledges.

    By it two bridges below one base topic know of each other: who is about to connect asks, who is online answers.
    """

    time: Annotated[str, _time("when the probe was sent")]
    nonce: Annotated[str, _text("a random word", "5936ff4b0f2614b5")]
    instance: (
        Annotated[
            str, _text("name of the bridge; absent in a probe of `check`, of `purge` and below an old base", "main")
        ]
        | None
    ) = None
    process: Annotated[str, _text("a random word for each run of a bridge", "9f1c02b7d84e6a35")] | None = None
    asks: Annotated[bool, _text("whether a bridge that is online here should answer by a probe", True)] = False


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem that an operator should look at."""

    time: Annotated[str, _time("when the problem was noticed")]
    kind: Annotated[str, Meta(pattern="^[a-z_]+$", description="kind of the alert", examples=["removal_held"])]
    message: Annotated[str, _text("what is wrong, and what to do", "10 terminal records are missing at once")]
    call: (
        Annotated[str, _text("the call; absent when the alert concerns the bridge itself", "user_terminals")] | None
    ) = None


class Coverage(msgspec.Struct, frozen=True):
    """Which of the fields that an answer of a call should have were in at least one record."""

    expected: Annotated[int, _integer("fields that are expected", 11)]
    found: Annotated[int, _integer("those that were in a record", 11)]
    missing: Annotated[list[str], _text("those that were in none", [])]


class CallState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of one call: whether it is enabled, its interval, its last poll and its next one."""

    call: CallName
    enabled: Annotated[bool, _text("whether the call is polled at its interval", True)]
    interval: Annotated[int, _integer("the interval that was set", 300, "s")]
    status: Annotated[Status, _text("result of the last poll, or the present state", "ok")]
    fresh: Annotated[bool, _text("whether the last success is younger than 3 intervals plus the lateness", True)]
    last_poll: Annotated[str, _time("when the last poll began")] | None = None
    last_success: Annotated[str, _time("when a poll last succeeded")] | None = None
    duration_ms: Annotated[int, _integer("how long the last successful poll took", 86, "ms")] | None = None
    records: Annotated[int, _integer("records that the last successful poll listed", 25)]
    events: Annotated[int, _integer("events that it gave", 2)]
    samples: Annotated[int, _integer("samples that it gave", 0)]
    next_poll: Annotated[str, _time("when the next poll is due")] | None = None
    error: Annotated[str, _text("what went wrong")] | None = None
    coverage: Coverage | None = None


class Result(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to a command of the polling manager."""

    id: Annotated[str, _text("the id of the command", "morning")] | None = None
    command: Literal["poll", "set", "enabled", "interval"]
    status: Literal["ok", "error"]
    error: Annotated[str, _text("what was wrong, and what was expected")] | None = None
    note: Annotated[str, _text("for a poll that has to wait: why, or until when; the result follows")] | None = None
    response_topic_error: Annotated[str, _text("why the answer does not go to the response topic too")] | None = None
    state: CallState | None = None


class Response(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to a request."""

    id: Annotated[str, _text("the id of the request", "spring cleaning")] | None = None
    status: Literal["ok", "error"]
    error: Annotated[str, _text("what was wrong, and what was expected")] | None = None
    count: Annotated[int, _integer("number of messages, calls or topics", 308)] | None = None
    response_topic_error: Annotated[str, _text("why the answer does not go to the response topic too")] | None = None


class Named(msgspec.Struct, frozen=True, omit_defaults=True):
    """An id, and its name if that is known."""

    id: Annotated[str, _text("raw id", "ACC-102")]
    name: Annotated[str, _text("its name", "Longline Satcom")] | None = None


class Relations(msgspec.Struct, frozen=True, omit_defaults=True):
    """Site, partner, customer and products of a terminal, joined from the records of other calls."""

    imei: Annotated[str, _text("key", "359235170297930")]
    product_ids: Annotated[list[str], _text("sorted", ["SC-410000160766"])]
    site: Named | None = None
    distribution_partner: Named | None = None
    end_customer: Named | None = None
