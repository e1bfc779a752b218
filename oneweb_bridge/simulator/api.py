"""The API itself: which path is which call, and what each call answers."""

from typing import Any

from . import faults, shapes
from .answer import Answer, SimulatedRequest, bad_request, method_not_allowed, not_found
from .clock import parse_rfc3339
from .faults import Fault
from .options import Options
from .paging import paged, requested_page
from .reports import TERMINAL_REPORTS
from .world import Collection, Window, World

Json = dict[str, Any]

_COMPONENTS_ALONE = {"id", "component"}


class Api:
    """Answers requests that have passed the gate."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._options: Options = world.options
        self._shape = world.options.shape
        self._requested: dict[str, tuple[str, dict[str, str], int]] = {}
        self._inventories = {
            self._shape.terminal_path: "terminals",
            self._shape.product_path: "products",
            self._shape.organization_path: "organizations",
            self._shape.site_path: "sites",
            self._shape.usage_path: "usage",
        }
        if self._shape.components == "own_path":
            self._inventories[self._shape.component_path] = "components"

    def answer(self, request: SimulatedRequest, fault: Fault | None = None) -> Answer:
        """The answer to a request, bent by a fault if it is of that kind. Refused when it is an error."""
        # The public client joins base and path with two slashes.
        if request.path.replace("//", "/") == self._shape.hello_path:
            _only_get(request)
            return Answer(200, {"message": "Hello OneWeb"})
        if request.path.startswith(self._shape.performance_base + "/"):
            return self._performance(request, request.path[len(self._shape.performance_base) + 1 :], fault)
        for path, kind in self._inventories.items():
            if request.path == path or request.path.startswith(path + "/"):
                _only_get(request)
                return self._inventory(request, kind, request.path[len(path) + 1 :] or None, fault)
        raise not_found()

    # inventories

    def _inventory(self, request: SimulatedRequest, kind: str, key: str | None, fault: Fault | None) -> Answer:
        wanted = self._wanted(request)
        return self._listing(request, kind, self._collection(kind, wanted), key, wanted=wanted, fault=fault)

    def _wanted(self, request: SimulatedRequest) -> frozenset[str]:
        """The attributes that `fields` asks for; none means all."""
        text = request.query.get("fields", "") if self._shape.fields else ""
        return frozenset(name.strip() for name in text.split(",") if name.strip())

    def _collection(self, kind: str, wanted: frozenset[str]) -> Collection:
        """A terminal shows its components when they live in it, and are asked for or always shown."""
        known = self._world.collections[kind]
        if kind != "terminals" or self._shape.components == "own_path":
            return known
        if wanted and wanted <= _COMPONENTS_ALONE and self._shape.components == "attribute":
            return self._world.collections["components"] if "component" in wanted else known
        asked_for = wanted & {"component", "resourceRelationship", "resourceCharacteristic"}
        if not asked_for and self._shape.component_shown == "asked":
            return known
        components = self._world.collections["components"]

        def both(index: int, at: float) -> Json:
            return {**known.build(index, at), **components.build(index, at)}

        return Collection(known.members, both, known.index_of)

    def _listing(
        self,
        request: SimulatedRequest,
        kind: str,
        collection: Collection,
        key: str | None,
        *,
        wanted: frozenset[str],
        fault: Fault | None,
    ) -> Answer:
        """One page, or an array of one."""
        at = self._world.clock.now()
        if key is not None:
            item = collection.find(key, at)
            if item is None:
                raise not_found()
            items, total = [item], 1
            page = requested_page(SimulatedRequest("GET", request.path, {}, {}, request.url), self._options)
        else:
            page = faults.bend_page(fault, requested_page(request, self._options))
            total = len(collection.members(at))
            items = collection.slice(page.offset, total if page.end is None else page.end, at)
        count = len(items)
        items = faults.bend_items(fault, items, self._world.chance)
        shaped_items = shapes.shaped(kind, items, self._shape, wanted)
        has_next = page.offset + count < total
        has_next, total = faults.bend_ends(fault, page, has_next, total)
        answer = paged(request, self._options, page, shaped_items, count=count, total=total, has_next=has_next)
        return faults.bend_links(fault, answer)

    # performance

    def _performance(self, request: SimulatedRequest, rest: str, fault: Fault | None) -> Answer:
        if self._shape.report_request == "post_first":
            return self._requested_report(request, rest, fault)
        _only_get(request)
        report, key, ids = self._report_named(request, rest)
        return self._report(request, report, key, ids, fault)

    def _report_named(self, request: SimulatedRequest, rest: str) -> tuple[str, str | None, list[str]]:
        """Which report a path means, of which single id, and which ids it is narrowed to."""
        ids = [id for id in request.query.get("id", "").split(",") if id]
        parts = rest.split("/")
        if self._shape.reports == "parameter":
            if parts != ["performanceReport"]:
                raise not_found()
            return self._known(request.query.get("report", ""), None), None, ids
        if self._shape.report_scope == "per_terminal" and len(parts) == 3 and not self._is_report(parts[1]):
            return self._known(parts[2], parts[0]), parts[1], ids
        if len(parts) not in (2, 3):
            raise not_found()
        key = parts[2] if len(parts) == 3 else None
        report = self._known(parts[1], parts[0])
        if self._shape.report_scope == "per_terminal" and key is None and len(ids) != 1:
            raise bad_request()
        return report, key, ids

    def _is_report(self, name: str) -> bool:
        return name in TERMINAL_REPORTS or name == "throughput"

    def _known(self, report: str, owner: str | None) -> str:
        """The report's name, if it exists for that owner."""
        expected = "product" if report == "throughput" else "userTerminal"
        if not self._is_report(report) or owner not in (None, expected):
            raise bad_request() if owner is None else not_found()
        return report

    def _report(
        self, request: SimulatedRequest, report: str, key: str | None, ids: list[str], fault: Fault | None
    ) -> Answer:
        collection = self._world.performance(report, self._window(request))
        if ids and key is None:
            collection = self._narrowed(collection, ids)
        return self._listing(request, "report", collection, key, wanted=self._wanted(request), fault=fault)

    def _narrowed(self, collection: Collection, ids: list[str]) -> Collection:
        """The same reports of some ids only; unknown ids are passed over."""
        positions = {collection.index_of(id) for id in ids}

        def members(at: float) -> list[int]:
            return [index for index in collection.members(at) if index in positions]

        return Collection(members, collection.build, collection.index_of)

    def _window(self, request: SimulatedRequest) -> Window | None:
        """The half-open window asked for; one end may be left open."""
        start, end = request.query.get(self._shape.start_parameter), request.query.get(self._shape.end_parameter)
        if start is None and end is None:
            if self._shape.window_required:
                raise bad_request()
            return None
        return self._time(start) if start else 0.0, self._time(end) if end else float("inf")

    def _time(self, text: str) -> float:
        try:
            match self._shape.time_format:
                case "epoch_ms":
                    return int(text) / 1000
                case "epoch_s":
                    return float(int(text))
                case _:
                    return parse_rfc3339(text)
        except (ValueError, OverflowError):
            raise bad_request() from None

    def _requested_report(self, request: SimulatedRequest, rest: str, fault: Fault | None) -> Answer:
        """POST performanceReport, then GET its id: the first time it is not ready yet, then it is there."""
        if rest == "performanceReport":
            if request.method != "POST":
                raise method_not_allowed()
            return self._accept(request)
        _only_get(request)
        prefix, _, number = rest.partition("/")
        if prefix != "performanceReport" or number not in self._requested:
            raise not_found()
        report, query, looks = self._requested[number]
        if looks == 0:
            self._requested[number] = report, query, 1
            return Answer(202, {"id": number, "status": "inProgress"})
        ids = [id for id in query.get("id", "").split(",") if id]
        merged = SimulatedRequest("GET", request.path, {**query, **request.query}, request.headers, request.url)
        return self._report(merged, report, None, ids, fault)

    def _accept(self, request: SimulatedRequest) -> Answer:
        query = shapes.string_members(request.body)
        if query is None:
            raise bad_request()
        report = self._known(query.pop("report", ""), None)
        self._window(SimulatedRequest("GET", request.path, query, {}, request.url))
        number = f"PR-{len(self._requested) + 1:06d}"
        self._requested[number] = report, query, 0
        headers = {"Location": f"{self._shape.performance_base}/performanceReport/{number}"}
        return Answer(202, {"id": number, "status": "acknowledged"}, headers)


def _only_get(request: SimulatedRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()
