"""`explore` names the lines that the bridge needs, and shows nothing that could not be shown."""

import asyncio
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oneweb_bridge import explore
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode import coverage
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.coverage import FieldCoverage
from oneweb_bridge.explore import findings, guesses, pages, places, recording, redaction, spans, trials
from oneweb_bridge.explore.client import Exchange
from oneweb_bridge.explore.context import Context, Finding
from oneweb_bridge.explore.evidence import Evidence, Reply, find_list
from oneweb_bridge.explore.reading import CallReading
from oneweb_bridge.explore.report import NOTHING_TO_CHANGE
from oneweb_bridge.explore.trials import with_change
from oneweb_bridge.explore.writing import changed_text
from oneweb_bridge.polling.time_windows import format_time
from oneweb_bridge.simulator import serve
from tests import fidelity
from tests.fidelity_table import ROWS
from tests.harness import command

SEEN = [row for row in ROWS if row.seen]
"""The rows that can be seen from outside. Not among them: what has no wrong answer (12: which of two levels is which,
26), what only a manual says (1 oauth2, 2, 3, 5, 30, 32: paths, tokens, requests that write), and 27."""

DEFAULT = fidelity.Row(row="", differs="")
TOGETHER: dict[str, dict[str, Any]] = {
    "names and form": {"names": "other", "indicators": "columns", "indicator_unit": False, "envelope": "data"},
    "flat, local time": {"indicators": "flat", "zone_hours": -5, "timestamps": "epoch_ms", "paging": "link_next"},
    "people and places": {"roles": "other", "coordinate_order": "lat_lon", "place": "external_id", "paging": "cursor"},
    "money": {"unlimited": "null", "counters": "other", "names": "other", "paging": "page_size"},
    "units": {"throughput_unit": "bps", "traffic_unit": "MB", "indicator_unit": False, "names": "other"},
}
"""Shapes with several alternatives at once, as a real API has them."""


async def explored(row: fidelity.Row, save: Path | None = None, lines: str = "") -> tuple[bool, str]:
    """Whether all is read in full, and what explore says of a row's API with the default configuration or `lines`."""
    printed: list[str] = []
    async with serve(fidelity.options_of(row)) as simulator:
        good = await explore.explore(fidelity.config_of(lines, simulator.url), printed.append, save)
    return good, "\n".join(printed)


def pasted(text: str) -> str:
    """The snippet at the end."""
    return text.partition("do not repeat them):\n\n")[2].partition("\n\n")[0]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> fidelity.Seen:
    """What the bridge with its defaults knows of the default API."""
    return asyncio.run(fidelity.seen(DEFAULT, tmp_path_factory.mktemp("truth")))


@pytest.mark.parametrize("row", SEEN, ids=lambda row: row.row)
async def test_the_lines_it_names_read_the_same_truth(row: fidelity.Row, truth: fidelity.Seen, tmp_path: Path) -> None:
    """The snippet that explore prints, and nothing else, reads the row's API as the default one."""
    good, text = await explored(row)
    assert good is not bool(pasted(text))
    assert good or "With these changes every enabled call is read in full" in text
    assert max(map(len, text.splitlines())) <= 110
    actual = await fidelity.seen(row, tmp_path, pasted(text))
    assert not fidelity.differences(row, actual, fidelity.expected(row, truth)), text


@pytest.mark.parametrize("name", TOGETHER)
async def test_several_differences_at_once_are_all_named(name: str, truth: fidelity.Seen, tmp_path: Path) -> None:
    """The snippet reads an API that differs in many ways; fields that such an API cannot say are left out."""
    row = fidelity.Row(row=name, differs=name, shape=TOGETHER[name], options={"default_limit": 5, "max_limit": 5})
    _, text = await explored(row)
    actual, wanted = await fidelity.seen(row, tmp_path, pasted(text)), fidelity.expected(row, truth)
    for side in (actual, wanted):
        for fields in side.records.values():
            for unsaid in ("site_external_id", "counter_type", "remaining_label"):
                fields.pop(unsaid, None)
    assert not fidelity.differences(row, actual, wanted), text


READ_TWICE = (
    "6 required",
    "8 columns",
    "10 unsaid",
    "13 characteristics",
    "16 cursor",
    "16 page_size",
    "24",
    "25",
    "31",
)


@pytest.mark.parametrize("row", [row for row in SEEN if row.row in READ_TWICE], ids=lambda row: row.row)
async def test_once_the_lines_are_in_the_file_there_is_nothing_more_to_say(row: fidelity.Row) -> None:
    """A second look, with what the first has printed, finds nothing to change."""
    _, text = await explored(row)
    good, second = await explored(row, lines=pasted(text))
    assert good, second
    assert second.splitlines()[-1] == NOTHING_TO_CHANGE


async def test_an_api_as_expected_needs_nothing() -> None:
    """Against the default API there is nothing to change, and each call has a line of its own."""
    good, text = await explored(DEFAULT)
    assert good
    assert text.splitlines()[-1] == NOTHING_TO_CHANGE
    flat = " ".join(text.split())
    assert "12 terminals, 12 with a position, 12 with a state" in flat
    assert flat.count("; in a bare list, page style offset_limit") == len(CALLS)
    assert "differs" not in text
    assert all(re.search(rf"^{call}\b", text, re.MULTILINE) for call in CALLS)
    assert max(map(len, text.splitlines())) <= 110


async def test_it_asks_little_and_writes_nothing() -> None:
    """A look at an API as expected is two or three requests for each call, all of them GET."""
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        await explore.explore(fidelity.config_of("", simulator.url), lambda _: None)
        requests = simulator.requests()
    assert requests["total"] <= 1 + 3 * len(CALLS)
    assert {request["method"] for request in requests["last"]} == {"GET"}


async def test_own_line_that_finds_nothing_is_named() -> None:
    """Where the default path would, the line of the user is told as his own, and the default is the change."""
    lines = "polling: {user_terminals: {map: {latitude: nope.lat, state: status.nope}}}"
    good, text = await explored(DEFAULT, lines=lines)
    flat = " ".join(text.split())
    assert not good
    for name in ("latitude", "state"):
        line = f"polling.user_terminals.map.{name}"
        assert f"your own line {line} finds nothing in any record, and the default path does: remove the line" in flat
    assert "With these changes every enabled call is read in full" in flat
    change = yaml.safe_load(pasted(text))
    assert set(change["polling"]["user_terminals"]["map"]) == {"latitude", "state"}
    good, second = await explored(DEFAULT, lines=pasted(text))
    assert good, second


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 404}, "polling.products.path (/api/webservices/productinventory/v2/product)"),
        ({"status": 403}, "ask OneWeb for a contract"),
        ({"status": 400}, "polling.products.query"),
    ],
)
async def test_a_call_that_is_not_reached_says_what_to_do(fault: dict[str, Any], says: str) -> None:
    """The reason and the keys to look at; the other calls go on, and the end is a failure."""
    printed: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        simulator.fault("status", path="productinventory", **fault)
        good = await explore.explore(fidelity.config_of("", simulator.url), printed.append)
    text = " ".join(" ".join(printed).split())
    assert not good
    assert f"answered {fault['status']}" in text
    assert says in text
    assert "12 terminals, 12 with a position" in text
    assert "1 call is not read in full: products." in text
    assert NOTHING_TO_CHANGE not in text


@pytest.mark.parametrize(
    ("fault", "says"),
    [({"kind": "deep", "depth": 900}, "nested more than 100 deep"), ({"kind": "not_utf8"}, "not UTF-8")],
)
async def test_an_answer_that_is_not_read_is_told(fault: dict[str, Any], says: str) -> None:
    """An answer that is nested too deep, or no text, is told of its call; the others go on."""
    printed: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        simulator.fault(**fault, path="productinventory")
        assert not await explore.explore(fidelity.config_of("", simulator.url), printed.append)
    text = " ".join(" ".join(printed).split())
    assert says in text
    assert "12 terminals, 12 with a position" in text


async def test_refused_credentials_end_it_with_both_ways_tried() -> None:
    """Where neither Basic nor headers are accepted, both are named, and the data calls refuse as well."""
    printed: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        config = fidelity.config_of("", simulator.url, api={"client_secret": "wrong"})
        assert not await explore.explore(config, printed.append)
        assert simulator.requests()["total"] <= 6
    text = "\n".join(printed)
    assert "auth.style basic" in text
    assert "auth.style headers" in text
    assert "wrong" not in text


async def test_the_command_prints_and_fails_like_a_command(tmp_path: Path) -> None:
    """`oneweb-bridge explore` exits 0 when all enabled calls are reachable, 1 when one is not."""
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        path = tmp_path / "bridge.yaml"
        settings: dict[str, Any] = {"base_url": simulator.url, "client_id": "demo", "client_secret": "demo-secret"}
        settings["rate_limit"] = {"min_interval": "0s"}
        path.write_text(yaml.safe_dump({"api": settings}))
        code, out, _ = await command("explore", "-c", str(path), "--save", str(tmp_path / "samples"), cwd=tmp_path)
        assert code == 0, out
        assert {file.stem for file in (tmp_path / "samples").iterdir()} == {*CALLS, "explore"}
        path.write_text(yaml.safe_dump({"api": settings, "polling": {"sites": {"path": "/nowhere"}}}))
        code, out, err = await command("explore", "-c", str(path), cwd=tmp_path)
    assert code == 1
    assert "polling.sites.path (/nowhere)" in " ".join(out.split())
    assert "demo-secret" not in out + err


# ── samples ────────────────────────────────────────────────────────────────────────────────────

_PRIVATE = ("id", "name", "imei", "imsi", "serialNumber", "externalId", "code", "tradingName", "city", "streetName")


def private(value: Any, name: str = "", around: dict[str, Any] | None = None) -> set[str]:
    """The ids, names and positions in an answer, as text."""
    if isinstance(value, dict):
        return {text for member, below in value.items() for text in private(below, member, value)}
    if isinstance(value, list):
        return {text for entry in value for text in private(entry, name, around)}
    if name in ("coordinates", "x", "y"):
        # A height of 14.5 is no secret, and chance may give it to another.
        return {str(value)} if len(str(value)) > 6 else set()
    is_indicator = name == "name" and "value" in (around or {})
    return {str(value)} if name in _PRIVATE and value and not is_indicator else set()


@pytest.mark.parametrize("shape", [{}, {"envelope": "items", "names": "other", "indicators": "columns"}])
async def test_samples_show_no_id_name_position_or_credential(shape: dict[str, Any], tmp_path: Path) -> None:
    """Nothing of the fleet stands in the saved files, in no letter case, not inside an address either."""
    row = fidelity.Row(row="", differs="", shape=shape)
    async with serve(fidelity.options_of(row)) as simulator:
        await explore.explore(fidelity.config_of("", simulator.url), lambda _: None, tmp_path)
        secrets = {
            text for kind in simulator.world.collections for thing in simulator.truth(kind) for text in private(thing)
        }
    saved = "\n".join(file.read_text() for file in tmp_path.iterdir())
    folded = saved.lower()
    assert len(secrets) > 100
    assert [
        secret
        for secret in sorted(secrets)
        if secret.lower() in folded and re.search(rf"(?<![\w.]){re.escape(secret.lower())}(?![\w.])", folded)
    ] == []
    assert "demo-secret" not in saved
    assert "uthorization" not in saved
    for imei in (secret for secret in secrets if re.fullmatch(r"\d{15}", secret)):
        assert imei not in saved


async def test_samples_keep_form_and_joins(tmp_path: Path) -> None:
    """At most three records; an IMEI is 15 digits still, and the same terminal has the same id in every file."""
    await explored(DEFAULT, tmp_path)
    sample = {id: json.loads((tmp_path / f"{id}.json").read_text()) for id in CALLS}
    assert all(len(records) == 3 for records in sample.values())
    imeis = [terminal["id"] for terminal in sample["user_terminals"]]
    assert all(re.fullmatch(r"\d{15}", imei) for imei in imeis)
    assert [terminal["imei"] for terminal in sample["user_terminals"]] == imeis
    assert [report["id"] for report in sample["ut_signal_quality"]] == imeis
    assert sample["user_terminals"][0]["product"][0]["id"] == sample["products"][0]["id"]
    assert sample["user_terminals"][0]["href"].endswith(f"/resourceInventory/v3/userTerminal/{imeis[0]}")
    assert sample["products"][0]["characteristic"][0]["name"] == "allowance"
    assert sample["user_terminals"][0]["relatedParty"][0]["role"] == "Distribution Partner"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**16), 10**16) | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "name", "value", "bucket", "relatedParty", "place", "characteristic", "measurement", "x"]
            )
            | st.text(max_size=4),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@hypothesis.example({"x": math.inf, "id": -math.inf}, 0)
@given(JSON, st.integers(0, 1000))
def test_redaction_takes_any_json(body: Any, seed: int) -> None:
    """Whatever came has a sample, of the same kind, and the same chance gives the same sample."""
    first, other = (redaction.samples([("sites", body)], random.Random(seed))["sites"] for _ in range(2))
    assert first == other
    assert type(first) is type(body)


@hypothesis.settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(CALLS)), JSON, min_size=1))
def test_no_answer_breaks_the_judges(bodies: dict[str, Any]) -> None:
    """Any JSON in the place of an answer is judged without an error."""
    config = parse("", {})
    seen = evidences(config, bodies)
    context = Context.of(seen, config)
    for evidence_ in seen:
        findings.judge(evidence_, context)
        reading = CallReading(outcome="odd", error="none of 1 records has a readable id")
        list(findings.remedies(evidence_, reading, {"terminal": {"1": {"imsi": "2"}}}))
        pages.evidence_of_more(evidence_.reply, 1, unpaged=True)
        list(pages.page_changes(evidence_.call.page, evidence_.reply, 1, []))
    findings.general(context)


# ── single judgements ──────────────────────────────────────────────────────────────────────────


def evidences(config: Config, bodies: dict[str, Any]) -> list[Evidence]:
    """Evidence with these answers."""
    seen = []
    for id, call in config.polling.items():
        reply = Reply(outcome="ok", body=bodies.get(id), time=1_750_169_700_000)
        seen.append(Evidence(call=call, reply=reply, listed=find_list(reply.body)))
    return seen


def findings_in(call: str, body: Any, lines: str = "") -> list[Finding]:
    """The findings for one answer of one call, alone."""
    config = parse(lines, {})
    (seen,) = (e for e in evidences(config, {call: body}) if e.call.id == call)
    return findings.judge(seen, Context.of([seen], config))


def test_a_latitude_beyond_the_pole_is_a_longitude() -> None:
    """Without any site, a latitude above 90 tells that the coordinates are the other way round."""
    terminal = {"id": "1", "location": {"features": [{"geometry": {"coordinates": [10.5, 120.25]}}]}}
    assert [finding.change for finding in findings_in("user_terminals", [terminal])] == [
        {"mapping": {"coordinate_order": "lat_lon"}}
    ]


def test_a_list_elsewhere_is_found_with_its_path() -> None:
    """A list under unknown names needs `records`, that of usage with the buckets below."""
    assert findings_in("sites", {"response": {"sites": [{"id": "1"}]}})[0].change == {
        "polling": {"sites": {"records": "response.sites[*]"}}
    }
    usage = {"answer": {"reports": [{"id": "1", "bucket": [{"id": "b"}]}]}}
    assert findings_in("usage_consumption", usage)[0].change == {
        "polling": {"usage_consumption": {"records": "answer.reports[*].bucket[*]"}}
    }


def test_flat_records_of_one_id_are_rows() -> None:
    """One flat record for each sample needs `explode: rows`, and the name of the time."""
    rows = [
        {"id": "1", "measuredAt": f"2025-06-17T13:{minute}:00Z", "rsrp": -90, "rssi": -60, "sinr": 9}
        for minute in (30, 40)
    ]
    (finding,) = findings_in("ut_signal_quality", rows)
    assert finding.change["polling"]["ut_signal_quality"] == {
        "explode": "rows",
        "measurements": "rows[*]",
        "indicators": None,
        "timestamp": "measuredAt",
    }


def test_components_in_records_of_their_own_are_rows() -> None:
    """One record for each component needs `explode: rows`."""
    rows = [{"id": "1", "partition": "main", "type": kind, "version": "1"} for kind in ("UT", "SSM")]
    (finding,) = findings_in("user_terminal_components", rows)
    assert finding.change["polling"]["user_terminal_components"] == {"explode": "rows"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("cnx_tx_bytes", "customerTx"), ("ef_uplink_bps", "EF_UL"), ("latency_ms", "roundTripTime"), ("sinr_db", "SINR")],
)
def test_names_that_mean_the_same_are_alike(ours: str, theirs: str) -> None:
    """Abbreviations and synonyms are the same words."""
    assert guesses.words_of(ours) == guesses.words_of(theirs)


async def test_a_report_that_has_to_be_requested_is_not_asked() -> None:
    """A look only reads: where the configuration says `fetch: request`, nothing is sent, and nothing is known of it."""
    printed: list[str] = []
    lines = "polling: {ut_traffic: {fetch: request}}"
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        assert not await explore.explore(fidelity.config_of(lines, simulator.url), printed.append)
        assert not [path for path in simulator.requests()["counts"] if path.endswith("/traffic")]
    assert any("not asked" in line for line in printed)


def test_a_map_by_id_is_redacted_too() -> None:
    """Names of members are kept, but for those that are ids."""
    body = [{"terminals": {"359235170006117": {"state": "x"}}, "id": "359235170006117"}]
    (shown,) = redaction.samples([("sites", body)], random.Random(1))["sites"]
    (imei,) = shown["terminals"]
    assert imei == shown["id"] != "359235170006117"


@pytest.mark.parametrize(
    "member",
    [
        {"utImei": 359235170006117},
        {"device_imsi": 1010170006117},
        {"SERIAL_NO": 44170},
        {"serialNumber": "44170"},
        {"postcode": "60041"},
        {"postalCode": 60041},
        {"name": "imei", "value": 359235170006117},
        {"name": "latitude", "value": "62.472228"},
        {"geoLat": 62.472228},
        {"long": "6.021412"},
        {"lastKnownLongitude": 6.021412},
        {"position": [6.021412, 62.472228]},
        {"columns": ["gps_lat"], "rows": [[62.472228]]},
    ],
    ids=str,
)
def test_ids_and_positions_under_other_names_are_redacted(member: dict[str, Any]) -> None:
    """An API that deviates names them otherwise than the catalogue; numbers are ids and positions too."""
    shown = json.dumps(redaction.samples([("sites", [member])], random.Random(1)))
    for secret in ("359235170006117", "1010170006117", "44170", "60041", "62.47", "6.02"):
        assert secret not in shown


def test_refusals_are_redacted(tmp_path: Path) -> None:
    """What a refusal says stays, but for the ids in it; they may be numbers."""
    body = {"message": "no terminal 359235170006117", "code": 404, "detail": {"utImei": 359235170006117}}
    refusal = Exchange(method="GET", url="https://api/x", status=404, body=json.dumps(body).encode())
    recording.save(tmp_path, recording.Explored([refusal], {}, "https://api", 0), Masks())
    saved = (tmp_path / recording.FILE).read_text()
    assert "no terminal" in saved
    assert "404" in saved
    assert "359235170006117" not in saved


def test_amounts_are_no_ids() -> None:
    """What is measured is shown as it came."""
    body = {"latency": 68.4, "cnxTx": 73600000000, "valueName": "143 GB", "name": "rsrp", "value": -40, "alternate": 3}
    assert redaction.samples([("sites", [body])], random.Random(1))["sites"] == [body]


def test_words_that_several_calls_use_go_together() -> None:
    """Another word for no limit in products, and null in usage: both stand in the list that is printed."""
    product = [{"id": "1", "characteristic": [{"name": "allowance", "value": "No cap"}]}]
    usage = [{"id": "1", "bucket": [{"bucketBalance": [{"remainingValue": {"amount": None}}]}]}]
    changes: dict[str, Any] = {}
    for call, body in (("products", product), ("usage_consumption", usage)):
        for finding in findings_in(call, body):
            changes = with_change(changes, finding.change)
    assert changes["mapping"]["unlimited"] == ["Unlimited", "-1", "No cap", "null"]


# ── writing the file, and a folder in place of the API ─────────────────────────────────────────

WRITTEN = ("6 required", "16 cursor", "20", "24")
FILE = """\
# My bridge.
instance: main      # do not rename

api:
  base_url: {url}
  client_id: "demo"
  client_secret: 'demo-secret'
  rate_limit: {{min_interval: 0s}}   # the simulator can take it

polling:
  user_terminals:
    interval: 7m     # often enough
mqtt: {{host: localhost}}
"""


@pytest.mark.parametrize("row", [row for row in SEEN if row.row in WRITTEN], ids=lambda row: row.row)
async def test_what_is_written_is_read_in_full_the_next_time(row: fidelity.Row, tmp_path: Path) -> None:
    """`--write` changes only what it must, keeps a copy, and a second look has nothing to change."""
    path = tmp_path / "bridge.yaml"
    async with serve(fidelity.options_of(row)) as simulator:
        before = FILE.format(url=simulator.url)
        path.write_text(before)
        code, out, _ = await command("explore", "-c", str(path), "--write", str(path), cwd=tmp_path)
        assert code == 0, out
        assert out.splitlines()[-1] == "Every enabled call is read in full with bridge.yaml as it is now."
        assert path.with_name("bridge.yaml.before-explore").read_text() == before
        after = path.read_text()
        kept = [line for line in before.splitlines() if line not in after.splitlines()]
        assert kept == []
        code, out, _ = await command("explore", "-c", str(path), cwd=tmp_path)
    assert code == 0, out
    assert out.splitlines()[-1] == NOTHING_TO_CHANGE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1", "no YAML that can be changed"),
        (b"- 1\n- 2\n", "no YAML of keys with values"),
        (b"\xff\xfe", "no YAML file in UTF-8"),
        (b"polling: {sites: &s {interval: 1h}, products: *s}\n", "has anchors"),
        (None, "cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_changed_is_a_sentence(content: bytes | None, says: str, tmp_path: Path) -> None:
    """It is known before anything is asked, and the file is as it was."""
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    config = fidelity.config_of("", "http://127.0.0.1:1")
    with pytest.raises(explore.WriteRefused, match=says) as refusal:
        await explore.explore(config, print, file=path)
    assert "nothing was changed" in str(refusal.value)
    assert list(tmp_path.iterdir()) == ([] if content is None else [path])
    assert content is None or path.read_bytes() == content


def test_a_change_keeps_the_rest_of_the_shipped_file() -> None:
    """Of bridge.yaml, with all its comments, only the lines of the changed keys differ."""
    text = (Path(__file__).parent.parent / "bridge.yaml").read_text()
    changed = changed_text(text, {"polling": {"sites": {"path": "/sites"}}, "mapping": {"timezone": "UTC"}}, "x")
    before, after = text.splitlines(), changed.splitlines()
    assert len(before) == len(after)
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        line for line in after if line.strip().startswith(("path: /sites", "timezone: UTC")) and line not in before
    ]


@pytest.mark.parametrize("row", [row for row in SEEN if row.row in ("6 names", "7 path", "16 link_next", "18", "24")])
async def test_a_folder_gives_the_same_lines_as_the_api(row: fidelity.Row, tmp_path: Path) -> None:
    """What `--save` wrote is enough to come to the same changes, without a network."""
    _, live = await explored(row, tmp_path)
    printed: list[str] = []
    config = fidelity.config_of("", "https://nowhere.invalid")
    await explore.explore(config, printed.append, source=tmp_path)
    assert pasted("\n".join(printed)) == pasted(live) != ""


async def test_a_large_fleet_is_saved_in_part(tmp_path: Path) -> None:
    """Of a long listing the first records are saved, and the folder is read as whole as they are."""
    row = fidelity.Row(row="", differs="", options={"terminals": 70})
    await explored(row, tmp_path)
    printed: list[str] = []
    assert await explore.explore(fidelity.config_of("", "https://nowhere.invalid"), printed.append, source=tmp_path)
    assert "50 terminals, " in "\n".join(printed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is empty"),
        (b'{"version": 1, "program": "0.1.0", "now": 1, "exch', "is cut off"),
        (b'{"version": 99}', "another version"),
        (b"[]", "is no recording"),
    ],
)
async def test_a_folder_that_is_no_recording_is_a_sentence(content: bytes | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "explore.json").write_bytes(content)
    with pytest.raises(explore.RecordingError, match=says):
        await explore.explore(fidelity.config_of("", "https://nowhere.invalid"), print, source=tmp_path)


async def test_a_folder_that_is_not_there_is_a_sentence_of_the_command(tmp_path: Path) -> None:
    code, _, err = await command("explore", "--from", str(tmp_path / "nothing"))
    assert code == 2
    assert "cannot be read" in err
    assert "explore --save" in err


# ── proof ──────────────────────────────────────────────────────────────────────────────────────


def more(body: Any, count: int, **reply: Any) -> str:
    """Why an answer is not all."""
    return pages.evidence_of_more(Reply(outcome="ok", body=body, **reply), count, unpaged=True)


def test_only_evidence_says_that_there_is_more() -> None:
    """Totals, cursors, links, and a full page; but not what happens to be in a record."""
    assert more({"items": [], "meta": {"nextCursor": "abc"}}, 3) == "'meta.nextCursor' names a next page"
    assert more({"items": [], "paging": {"total": 12}}, 5) == "'paging.total' says 12"
    assert more({"items": [], "hasMore": True}, 5)
    assert more([], 20).endswith("a usual size of a page")
    assert more([], 7, next_page="http://x/?offset=7")
    assert more([], 7, is_part=True)
    assert more([], 7, totals=(("X-Total", 9),))
    assert not more({"items": [], "meta": {"total": 7, "nextCursor": None}}, 7)
    assert not more({"id": "1", "token": "x", "total": 99}, 7)


def test_the_size_in_an_address_is_no_offset() -> None:
    """A Link with per_page=20 after 20 records: it is page 2 that leads on."""
    reply = Reply(outcome="ok", body=[], next_page="http://x/t?page=2&per_page=20")
    changes = list(pages.page_changes(CALLS["sites"].page, reply, 20, []))
    assert {"style": "page_size", "size_param": "per_page"} in changes
    assert not [change for change in changes if change.get("offset_param") == "per_page"]


def test_a_refusal_names_what_is_tried_first() -> None:
    """The text of a 400 has the parameters and the form that the API wants."""
    call = CALLS["ut_traffic"]
    first, *_ = spans.changes_after_refusal(call, "parameter 'from' and 'to' are required", None)
    assert first == {"start_param": "from", "end_param": "to", "required": True}
    tried = list(spans.changes_after_refusal(call, "startDateTime must be a date (yyyy-MM-dd)", None))
    formats = [change["format"] for change in tried if "format" in change]
    assert formats[0] == "date"


def test_other_paths_have_versions_plurals_and_other_services() -> None:
    """The variants that are tried for a path that is not there."""
    tried = places.other_paths("/geographicSiteManagement/v1/geographicSite", [])
    for path in ("/geographicSiteManagement/v4/geographicSite", "/geographicSiteManagement/v1/geographicSites"):
        assert path in tried
    assert "/v1/geographicSite" in tried
    assert "/geographicSiteManagement/v1/geographic-site" in tried
    assert len(tried) <= places.MAX_PLACES
    hints = [("/resourceInventory/v3/userTerminal", "/x/resourceInventory/v4/userTerminal")]
    assert "/x/resourceInventory/v4/a" in places.other_paths("/resourceInventory/v3/a", hints)


@pytest.mark.parametrize(
    ("format_", "start", "end"),
    [
        ("rfc3339", "2025-06-17T13:40:07.250Z", "2025-06-17T13:40:07.250Z"),
        ("rfc3339_s", "2025-06-17T13:40:07Z", "2025-06-17T13:40:07Z"),
        ("rfc3339_offset", "2025-06-17T13:40:07+00:00", "2025-06-17T13:40:07+00:00"),
        ("without_zone", "2025-06-17T13:40:07", "2025-06-17T13:40:07"),
        ("date", "2025-06-17", "2025-06-18"),
        ("epoch_s", "1750167607", "1750167607"),
        ("epoch_ms", "1750167607250", "1750167607250"),
    ],
)
def test_times_are_written_as_the_api_wants_them(format_: str, start: str, end: str) -> None:
    """In UTC; the end of a window in dates is the day after."""
    assert format_time(format_, 1_750_167_607_250) == start
    assert format_time(format_, 1_750_167_607_250, is_end=True) == end


def test_activation_is_not_termination() -> None:
    """Names that are alike in their letters alone are no proposal."""
    body = [{"id": "1", "activationDate": "2025-06-17T13:40:07Z"}]
    assert not [f for f in findings_in("products", body) if "termination_date" in str(f.change)]


# ── comparing readings ─────────────────────────────────────────────────────────────────────────


def reading(count: int, **fields: int) -> CallReading:
    """Of so many records, so many have each field."""
    records: dict[str, dict[str, Any]] = {str(n): {} for n in range(count)}
    return CallReading(
        outcome="ok", count=count, records=records, fields=fields, coverage=FieldCoverage(2, len(fields), ())
    )


def test_a_change_that_reads_less_is_not_proposed() -> None:
    """Fewer records, a field less often, or something new that is unexpected: each is worse."""
    before = reading(5, name=5, state=4)
    assert trials.is_no_worse(before, before)
    assert not trials.improves(before, before)
    assert trials.improves(reading(5, name=5, state=5), before)
    assert not trials.is_no_worse(reading(4, name=4, state=4), before)
    assert not trials.is_no_worse(reading(5, name=4, state=5), before)
    finding = coverage.Finding("implausible", "state", "x")
    assert not trials.is_no_worse(replace(before, findings=(finding,)), before)
    assert not trials.is_no_worse(replace(before, set_aside=1), before)


def test_an_answer_that_is_read_for_nothing_is_no_improvement() -> None:
    """From a failure to records of which no expected field is read is no way forward."""
    failed = CallReading(outcome="odd", error="no list")
    assert trials.improves(reading(5, name=5), failed)
    assert not trials.improves(reading(5), failed)


def test_pages_are_proved_by_their_end() -> None:
    """More records with the first page again at the end may be a larger first page alone."""
    before = replace(reading(3, name=3), unpaged=True)
    assert trials.lists_more(reading(7, name=7), before)
    assert trials.lists_more(reading(3, name=3), before)
    assert not trials.lists_more(replace(reading(7, name=7), unpaged=True), before)
    assert trials.lists_more_at_once(replace(reading(7, name=7), unpaged=True), before)
