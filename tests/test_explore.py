"""`explore` names the lines that the bridge needs, and shows nothing that could not be shown."""

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge import explore
from oneweb_bridge.config.read import parse
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.explore import evidence, findings, guesses, redaction, report
from oneweb_bridge.explore.context import Finding
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
    """What explore says of a row's API with the default configuration, or with `lines`."""
    said: list[str] = []
    async with serve(fidelity.options_of(row)) as simulator:
        reachable = await explore.explore(fidelity.config_of(lines, simulator.url), said.append, save)
    return reachable, "\n".join(said)


def pasted(text: str) -> str:
    """The snippet at the end."""
    return text.partition("do not repeat them):")[2]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> fidelity.Seen:
    """What the bridge with its defaults knows of the default API."""
    return asyncio.run(fidelity.seen(DEFAULT, tmp_path_factory.mktemp("truth")))


@pytest.mark.parametrize("row", SEEN, ids=lambda row: row.row)
async def test_the_lines_it_names_read_the_same_truth(row: fidelity.Row, truth: fidelity.Seen, tmp_path: Path) -> None:
    """The snippet that explore prints, and nothing else, reads the row's API as the default one."""
    reachable, text = await explored(row)
    assert reachable
    assert max(map(len, text.splitlines())) <= 110
    found = await fidelity.seen(row, tmp_path, pasted(text))
    assert not fidelity.differences(row, found, fidelity.expected(row, truth)), text


@pytest.mark.parametrize("name", TOGETHER)
async def test_several_differences_at_once_are_all_named(name: str, truth: fidelity.Seen, tmp_path: Path) -> None:
    """The snippet reads an API that differs in many ways; fields that such an API cannot say are left out."""
    row = fidelity.Row(row=name, differs=name, shape=TOGETHER[name], options={"default_limit": 5, "max_limit": 5})
    _, text = await explored(row)
    found, wanted = await fidelity.seen(row, tmp_path, pasted(text)), fidelity.expected(row, truth)
    for one in (found, wanted):
        for fields in one.records.values():
            for unsaid in ("site_external_id", "counter_type", "remaining_label"):
                fields.pop(unsaid, None)
    assert not fidelity.differences(row, found, wanted), text


AGAIN = ("6 required", "8 columns", "10 unsaid", "13 characteristics", "16 cursor", "16 page_size", "24", "25", "31")


@pytest.mark.parametrize("row", [row for row in SEEN if row.row in AGAIN], ids=lambda row: row.row)
async def test_once_the_lines_are_in_the_file_there_is_nothing_more_to_say(row: fidelity.Row) -> None:
    """A second look, with what the first has printed, finds nothing to change."""
    _, text = await explored(row)
    _, again = await explored(row, lines=pasted(text))
    assert "Nothing to change" in again, again


async def test_an_api_as_expected_needs_nothing() -> None:
    """Against the default API there is nothing to change, and each call has a line of its own."""
    reachable, text = await explored(DEFAULT)
    assert reachable
    assert "Nothing to change" in text
    assert "differs" not in text
    assert all(re.search(rf"^{call}\b", text, re.MULTILINE) for call in CALLS)
    assert max(map(len, text.splitlines())) <= 110


async def test_it_asks_little_and_writes_nothing() -> None:
    """A look at an API as expected is two or three requests for each call, all of them GET."""
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        await explore.explore(fidelity.config_of("", simulator.url), lambda _: None)
        asked = simulator.requests()
    assert asked["total"] <= 1 + 3 * len(CALLS)
    assert {request["method"] for request in asked["last"]} == {"GET"}


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
    said: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        simulator.fault("status", path="productinventory", **fault)
        good = await explore.explore(fidelity.config_of("", simulator.url), said.append)
    text = " ".join(" ".join(said).split())
    assert not good
    assert f"answered {fault['status']}" in text
    assert says in text
    assert "12 items in a bare list" in text


@pytest.mark.parametrize(
    ("fault", "says"),
    [({"kind": "deep", "depth": 900}, "nested more than 100 deep"), ({"kind": "not_utf8"}, "not JSON")],
)
async def test_an_answer_that_is_not_read_is_told(fault: dict[str, Any], says: str) -> None:
    """An answer that is nested too deep, or no text, is told of its call; the others go on."""
    said: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        simulator.fault(**fault, path="productinventory")
        assert not await explore.explore(fidelity.config_of("", simulator.url), said.append)
    text = " ".join(" ".join(said).split())
    assert says in text
    assert "12 items in a bare list" in text


async def test_refused_credentials_end_it_with_both_ways_tried() -> None:
    """Where neither Basic nor headers are accepted, both are named and no call is asked."""
    said: list[str] = []
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        config = fidelity.config_of("", simulator.url, api={"client_secret": "wrong"})
        assert not await explore.explore(config, said.append)
        assert simulator.requests()["total"] == 2
    text = "\n".join(said)
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
        code, out, _ = await command("explore", "-c", str(path), "--save", str(tmp_path / "samples"))
        assert code == 0, out
        assert {file.stem for file in (tmp_path / "samples").iterdir()} == set(CALLS)
        path.write_text(yaml.safe_dump({"api": settings, "polling": {"sites": {"path": "/nowhere"}}}))
        code, out, err = await command("explore", "-c", str(path))
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
    assert len(secrets) > 100
    assert [
        secret
        for secret in sorted(secrets)
        if re.search(rf"(?<![\w.]){re.escape(secret)}(?![\w.])", saved, re.IGNORECASE)
    ] == []
    assert "demo-secret" not in saved
    assert "uthorization" not in saved
    for imei in (secret for secret in secrets if re.fullmatch(r"\d{15}", secret)):
        assert imei not in saved


async def test_samples_keep_form_and_joins(tmp_path: Path) -> None:
    """At most three records; an IMEI is 15 digits still, and the same terminal has the same id in every file."""
    await explored(DEFAULT, tmp_path)
    sample = {file.stem: json.loads(file.read_text()) for file in tmp_path.iterdir()}
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


@given(JSON, st.integers(0, 1000))
def test_redaction_takes_any_json(body: Any, seed: int) -> None:
    """Whatever came has a sample, of the same kind, and the same chance gives the same sample."""
    one, other = (redaction.samples([("sites", body)], random.Random(seed))["sites"] for _ in range(2))
    assert one == other
    assert type(one) is type(body)


@hypothesis.settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(CALLS)), JSON, min_size=1))
def test_no_answer_breaks_the_judges(bodies: dict[str, Any]) -> None:
    """Any JSON in the place of an answer is judged and told without an error."""
    config = parse("", {})
    seen = []
    for id, call in config.polling.items():
        reply = evidence.Reply(outcome="ok", body=bodies.get(id), time=1_750_169_700_000)
        seen.append(evidence.Evidence(call=call, reply=reply, listed=evidence.find_list(reply.body)))
    verdict = findings.judge_all(seen, config, {})
    assert list(report.lines(seen, verdict))


# ── single judgements ──────────────────────────────────────────────────────────────────────────


def judged(call: str, body: Any, lines: str = "") -> list[Finding]:
    """The findings for one answer of one call, alone."""
    config = parse(lines, {})
    reply = evidence.Reply(outcome="ok", body=body, time=1_750_169_700_000)
    seen = evidence.Evidence(call=config.polling[call], reply=reply, listed=evidence.find_list(body))
    return findings.judge_all([seen], config, {}).calls[0].findings


def test_a_latitude_beyond_the_pole_is_a_longitude() -> None:
    """Without any site, a latitude above 90 tells that the coordinates are the other way round."""
    terminal = {"id": "1", "location": {"features": [{"geometry": {"coordinates": [10.5, 120.25]}}]}}
    assert [finding.change for finding in judged("user_terminals", [terminal])] == [
        {"mapping": {"coordinate_order": "lat_lon"}}
    ]


def test_a_list_elsewhere_is_found_with_its_path() -> None:
    """A list under unknown names needs `records`, that of usage with the buckets below."""
    assert judged("sites", {"response": {"sites": [{"id": "1"}]}})[0].change == {
        "polling": {"sites": {"records": "response.sites[*]"}}
    }
    usage = {"answer": {"reports": [{"id": "1", "bucket": [{"id": "b"}]}]}}
    assert judged("usage_consumption", usage)[0].change == {
        "polling": {"usage_consumption": {"records": "answer.reports[*].bucket[*]"}}
    }


def test_flat_records_of_one_id_are_rows() -> None:
    """One flat record for each sample needs `explode: rows`, and the name of the time."""
    rows = [
        {"id": "1", "measuredAt": f"2025-06-17T13:{minute}:00Z", "rsrp": -90, "rssi": -60, "sinr": 9}
        for minute in (30, 40)
    ]
    (finding,) = judged("ut_signal_quality", rows)
    assert finding.change["polling"]["ut_signal_quality"] == {
        "explode": "rows",
        "measurements": "rows[*]",
        "indicators": None,
        "timestamp": "measuredAt",
    }


def test_components_in_records_of_their_own_are_rows() -> None:
    """One record for each component needs `explode: rows`."""
    rows = [{"id": "1", "partition": "main", "type": kind, "version": "1"} for kind in ("UT", "SSM")]
    (finding,) = judged("user_terminal_components", rows)
    assert finding.change["polling"]["user_terminal_components"] == {"explode": "rows"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("cnx_tx_bytes", "customerTx"), ("ef_uplink_bps", "EF_UL"), ("latency_ms", "roundTripTime"), ("sinr_db", "SINR")],
)
def test_names_that_mean_the_same_are_alike(ours: str, theirs: str) -> None:
    """Abbreviations and synonyms are the same words."""
    assert guesses.words_of(ours) == guesses.words_of(theirs)


async def test_a_report_that_has_to_be_requested_is_not_asked() -> None:
    """A look only reads: where the configuration says `fetch: request`, nothing is sent, and nothing has failed."""
    said: list[str] = []
    lines = "polling: {ut_traffic: {fetch: request}}"
    async with serve(fidelity.options_of(DEFAULT)) as simulator:
        assert await explore.explore(fidelity.config_of(lines, simulator.url), said.append)
        assert not [path for path in simulator.requests()["counts"] if path.endswith("/traffic")]
    assert any("not asked" in line for line in said)


def test_a_map_by_id_is_redacted_too() -> None:
    """Names of members are kept, but for those that are ids."""
    body = [{"terminals": {"359235170006117": {"state": "x"}}, "id": "359235170006117"}]
    (shown,) = redaction.samples([("sites", body)], random.Random(1))["sites"]
    (imei,) = shown["terminals"]
    assert imei == shown["id"] != "359235170006117"


def test_words_that_several_calls_use_go_together() -> None:
    """Another word for no limit in products, and null in usage: both stand in the list that is printed."""
    config = parse("", {})
    bodies: dict[str, Any] = {
        "products": [{"id": "1", "characteristic": [{"name": "allowance", "value": "No cap"}]}],
        "usage_consumption": [{"id": "1", "bucket": [{"bucketBalance": [{"remainingValue": {"amount": None}}]}]}],
    }
    seen = [
        evidence.Evidence(call=call, reply=evidence.Reply(outcome="ok", body=bodies.get(id, [])))
        for id, call in config.polling.items()
    ]
    for one in seen:
        one.listed = evidence.find_list(one.reply.body)
    changes = findings.judge_all(seen, config, {}).changes
    assert changes["mapping"]["unlimited"] == ["Unlimited", "-1", "No cap", "null"]
