"""What the console's API answers, as structs; the OpenAPI document is made of the same ones. Pure.

Records, samples, usage, forecasts and events stand in them byte for byte as they are published.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from oneweb_bridge.model.exploration import Exploration
from oneweb_bridge.model.status import CallState, Info, Response, Result

Ms = Annotated[int, Meta(description="time in milliseconds since the epoch")]
Seq = Annotated[int, Meta(description="row of the journal", ge=0)]


class SessionState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Whether this visitor is signed in, and below which path the console is. Version and instance need a sign-in."""

    signed_in: bool
    read_only: bool
    version: str | None = None
    instance: str | None = None
    base: str


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a visitor signs in with."""

    token: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Why a request was refused, in one sentence."""

    error: str


class Readiness(msgspec.Struct, frozen=True):
    """Whether API, broker and journal work."""

    api: bool
    broker: bool
    journal: bool


class AlertEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An alert, and what to do about it."""

    seq: Seq
    time: str
    kind: str
    call: str | None
    message: str
    advice: str | None


class BridgeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """State of the bridge, its readiness, and the alerts of the last 24 hours, newest first."""

    info: Info
    ready: Readiness
    alerts: list[AlertEntry]


class AlertsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts, newest first; `next` is the `before` of the next page."""

    alerts: list[AlertEntry]
    next: int | None


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Events as they are published, newest first; `next` is the `before` of the next page."""

    events: list[Raw]
    next: int | None


FLEET_COLUMNS = (
    "imei",
    "name",
    "state",
    "seen_ts",
    "sinr_db",
    "sinr_ts",
    "link_availability_pct",
    "availability_ts",
    "bucket_id",
    "used_pct",
    "overage_blocks",
    "forecast_status",
    "exhausted_ts",
    "product_id",
    "product",
    "site_id",
    "site",
    "end_customer_id",
    "end_customer",
    "distribution_partner_id",
    "distribution_partner",
    "latitude",
    "longitude",
    "product_ids",
)
"""In this order; new ones go to the end."""

Cell = str | int | float | bool | None


class FleetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All terminals with their newest values, a row each; null is unknown. `live` goes on from `seq`."""

    seq: Annotated[str, Meta(description="journal and row", examples=["1bf44f91fcc37727:2853"])]
    columns: list[str]
    rows: list[tuple[Cell, ...]]


class TerminalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal: its record, relations and components, its newest samples by report, its products and allowances."""

    record: Raw
    relations: Raw | None
    components: dict[str, str]
    samples: dict[str, Raw]
    products: list[Raw]
    buckets: list[Raw]
    forecasts: list[Raw]


class PoolMember(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket that takes from a shared allowance, with its product and terminal; null is unknown."""

    bucket_id: str
    used_gb: float | None
    overage_blocks: int | None
    product_id: str | None
    product: str | None
    imei: str | None
    terminal: str | None


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A shared allowance: its names, and the buckets that take from it, those that used most first."""

    shared_allowance_id: str
    shared_allowance_name: str | None
    shared_allowance_parent_id: str | None
    members: list[PoolMember]


class ProductAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A product: its record, its terminal's record, its newest samples by report, its allowances and their pools."""

    record: Raw
    terminal: Raw | None
    samples: dict[str, Raw]
    buckets: list[Raw]
    forecasts: list[Raw]
    pools: list[Pool]


class OrganizationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An organization: its record, and the records of its parent, its children and its sites."""

    record: Raw
    parent: Raw | None
    children: list[Raw]
    sites: list[Raw]


class SiteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A site: its record, and the records of its terminals and products."""

    record: Raw
    terminals: list[Raw]
    products: list[Raw]


class ExplorationAnswer(msgspec.Struct, frozen=True):
    """What `oneweb-bridge explore` found last; null where it was never run with this bridge's database."""

    exploration: Exploration | None


class TreeNode(msgspec.Struct, kw_only=True):
    """An organization, a site, or the terminals without a site, with the count of the terminals below by state."""

    kind: Literal["organization", "site", "none"]
    id: str
    name: str | None
    terminals: int = 0
    states: dict[str, int] = {}
    children: list["TreeNode"] = []


class TreeAnswer(msgspec.Struct, frozen=True):
    """The organizations without a parent, and what is below them."""

    roots: list[TreeNode]


Source = Literal["file", "mqtt", "console"]


class SettingSources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the settings of a call come from."""

    enabled: Source
    interval: Source


class CallAlert(msgspec.Struct, frozen=True):
    """An alert of a call that holds as of its last poll: its kind, and what it is about where there may be several."""

    kind: str
    about: str


class CallEntry(CallState, frozen=True, kw_only=True, omit_defaults=True):
    """A call's state as it is published, its interval in force, its cost, and where its settings come from."""

    effective_interval: Annotated[int, Meta(description="the interval in force in seconds")]
    requests_per_hour: Annotated[int, Meta(description="requests an hour at this interval")]
    lateness: Annotated[int, Meta(description="how late samples of this call may come, in seconds")]
    about: Annotated[str, Meta(description="what the call is about, for people")]
    source: SettingSources
    alerts: Annotated[list[CallAlert], Meta(description="alerts of this call that hold as of its last poll")]


class HeldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose removals or values are held, and of how many records."""

    call: str
    count: int
    ids: Annotated[list[str], Meta(description="the ids of these records, the first 50")]
    since: str | None


class CallsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All calls, what they cost together, the limit of requests an hour, and what is held."""

    calls: list[CallEntry]
    requests_per_hour: int
    limit: int | None
    held: list[HeldEntry]


class CommandAccepted(msgspec.Struct, frozen=True):
    """A command that is under way: its result comes with the live stream, under this id."""

    id: str


class CallResult(msgspec.Struct, frozen=True):
    """The answer to a command for a call."""

    call: str
    body: Result


class RequestResult(msgspec.Struct, frozen=True):
    """The answer to a request."""

    request: str
    body: Response
