"""Who may ask the console for what: the access table, guessing, sessions, and the form of requests and answers."""

import argparse
import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.cli import loading
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.web import access
from oneweb_bridge.web.sessions import MAX_ADDRESSES, RecentTimes, Sessions
from tests.consoles import COMMAND, TOKEN, Answer, Visits, visited

LAN = "0.0.0.0:8480"
LOCAL = "127.0.0.1:8480"
WITH_TOKEN = f"token: {TOKEN}"
PROXIED = f"token: {TOKEN}, trusted_proxies: [10.0.0.0/8], hosts: [Bridge.example.net]"
PROXIED_OPEN = "trusted_proxies: [10.0.0.1, 127.0.0.1]"
INGRESS = "ingress: 172.30.32.2"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
INGRESS_PATH = {"X-Ingress-Path": "/api/hassio_ingress/a_b-C9"}
PATHS = {
    "page": "/static/nothing.js",
    "data": "/api/v1/bridge",
    "command": "/api/v1/calls/sites/poll",
    "live": "/api/v1/live",
}

# settings, listen, peer, headers, then what page, data, command (with X-Oneweb-Console) and live answer.
# 404 of the page means that the rules let it pass: the file does not exist.
Row = tuple[str, str, str, Mapping[str, str], tuple[int, int, int, int]]
TABLE: list[Row] = [
    # off
    ("enabled: false", LOCAL, "127.0.0.1", {}, (404, 404, 404, 404)),
    (f"enabled: false, {WITH_TOKEN}", LAN, "192.0.2.7", BEARER, (404, 404, 404, 404)),
    ("", LAN, "127.0.0.1", {}, (404, 404, 404, 404)),
    ("", "[::]:8480", "::1", {}, (404, 404, 404, 404)),
    ("", "192.0.2.1:8480", "192.0.2.7", {"Host": "192.0.2.1:8480"}, (404, 404, 404, 404)),
    ("token: ''", LAN, "127.0.0.1", {}, (404, 404, 404, 404)),
    # this host, without a token
    ("", LOCAL, "127.0.0.1", {}, (404, 200, 200, 200)),
    ("", LOCAL, "127.8.8.8", {"Host": "127.0.0.1:8480"}, (404, 200, 200, 200)),
    ("", LOCAL, "::1", {"Host": "[::1]:8480"}, (404, 200, 200, 200)),
    ("", LOCAL, "::ffff:127.0.0.1", {"Host": "LOCALHOST"}, (404, 200, 200, 200)),
    ("", LOCAL, "127.0.0.1", {"Host": "bridge.localhost:8480"}, (404, 200, 200, 200)),
    ("", LOCAL, "127.0.0.1", {"Host": "192.0.2.1"}, (404, 401, 401, 401)),
    ("hosts: [bridge.example.net]", LOCAL, "127.0.0.1", {"Host": "bridge.example.net"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", {"X-Forwarded-Host": "localhost"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", {"Forwarded": "for=127.0.0.1"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", {"X-Real-IP": "127.0.0.1"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", {"Via": "1.1 proxy"}, (404, 401, 401, 401)),
    ("", LOCAL, "127.0.0.1", INGRESS_PATH, (404, 401, 401, 401)),
    (PROXIED_OPEN, LOCAL, "127.0.0.1", {}, (404, 401, 401, 401)),
    ("", LOCAL, "192.0.2.7", {}, (404, 401, 401, 401)),
    ("", LOCAL, "192.0.2.7", BEARER, (404, 401, 401, 401)),
    ("", LOCAL, "not an address", {}, (404, 401, 401, 401)),
    # names
    ("", LOCAL, "127.0.0.1", {"Host": "rebound.example.com"}, (421, 421, 421, 421)),
    ("", LOCAL, "127.0.0.1", {"Host": "localhost.example.com:8480"}, (421, 421, 421, 421)),
    ("", LOCAL, "127.0.0.1", {"Host": "notlocalhost"}, (421, 421, 421, 421)),
    ("", LOCAL, "127.0.0.1", {"Host": ""}, (421, 421, 421, 421)),
    ("", LOCAL, "127.0.0.1", {"Host": "user@localhost"}, (421, 421, 421, 421)),
    ("", LOCAL, "127.0.0.1", {"Host": "127.1"}, (421, 421, 421, 421)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Host": "rebound.example.com", **BEARER}, (421, 421, 421, 421)),
    (PROXIED, LAN, "10.1.2.3", {"Host": "other.example.net", **BEARER}, (421, 421, 421, 421)),
    (PROXIED, LAN, "10.1.2.3", {"Host": "other.net", "X-Forwarded-Host": "bridge.example.net"}, (421, 421, 421, 421)),
    # a token, from everywhere
    (WITH_TOKEN, LOCAL, "127.0.0.1", {}, (404, 401, 401, 401)),
    (WITH_TOKEN, LOCAL, "127.0.0.1", BEARER, (404, 200, 200, 200)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Host": "192.0.2.1:8480"}, (404, 401, 401, 401)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Host": "192.0.2.1:8480", **BEARER}, (404, 200, 200, 200)),
    (WITH_TOKEN, LAN, "2001:db8::7", {"Host": "[2001:db8::1]:8480", **BEARER}, (404, 200, 200, 200)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Authorization": f"bearer  {TOKEN}"}, (404, 200, 200, 200)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Authorization": f"Basic {TOKEN}"}, (404, 401, 401, 401)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Authorization": f"Bearer {TOKEN}x"}, (404, 401, 401, 401)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Authorization": "Bearer"}, (404, 401, 401, 401)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Cookie": "oneweb_console_8480=guessed"}, (404, 401, 401, 401)),
    (WITH_TOKEN, LAN, "192.0.2.7", INGRESS_PATH, (404, 401, 401, 401)),
    # other sites
    ("", LOCAL, "127.0.0.1", {"Sec-Fetch-Site": "same-origin"}, (404, 200, 200, 200)),
    ("", LOCAL, "127.0.0.1", {"Sec-Fetch-Site": "none"}, (404, 200, 403, 200)),
    ("", LOCAL, "127.0.0.1", {"Sec-Fetch-Site": "same-site"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Sec-Fetch-Site": "cross-site"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "null"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://localhost:8480", "Host": "localhost:8480"}, (404, 200, 200, 200)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://localhost:9999", "Host": "localhost:8480"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://localhost", "Host": "localhost:8480"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://LOCALHOST", "Host": "localhost:80"}, (404, 200, 200, 200)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://evil.example", "Host": "localhost:8480"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://evil@localhost:8480", "Host": "localhost:8480"}, (404, 403, 403, 403)),
    ("", LOCAL, "127.0.0.1", {"Origin": "http://localhost:x", "Host": "localhost:8480"}, (404, 403, 403, 403)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Sec-Fetch-Site": "cross-site", **BEARER}, (404, 403, 403, 403)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Origin": "https://evil.example", **BEARER}, (404, 403, 403, 403)),
    (WITH_TOKEN, LAN, "192.0.2.7", {"Sec-Fetch-Site": "cross-site"}, (404, 403, 403, 403)),
    # a proxy
    (PROXIED, LAN, "10.1.2.3", {"Host": "bridge.example.net", **BEARER}, (404, 200, 200, 200)),
    (PROXIED, LAN, "10.1.2.3", {"Host": "bridge.example.net"}, (404, 401, 401, 401)),
    (
        PROXIED,
        LAN,
        "10.1.2.3",
        {"Host": "bridge.example.net", "Origin": "https://bridge.example.net", "X-Forwarded-Proto": "https", **BEARER},
        (404, 200, 200, 200),
    ),
    (PROXIED_OPEN, LOCAL, "10.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, (404, 401, 401, 401)),
    # ingress
    (INGRESS, LAN, "172.30.32.2", {"Host": "homeassistant.local:8123", **INGRESS_PATH}, (404, 200, 200, 200)),
    (INGRESS, LAN, "172.30.32.2", {"Origin": "https://ha.example.net", **INGRESS_PATH}, (404, 200, 200, 200)),
    (INGRESS, LAN, "172.30.32.2", {"Sec-Fetch-Site": "cross-site", **INGRESS_PATH}, (404, 403, 403, 403)),
    (INGRESS, LAN, "172.30.32.2", {}, (404, 401, 401, 401)),
    (INGRESS, LAN, "172.30.32.2", {"X-Ingress-Path": "/api/hassio_ingress/"}, (404, 401, 401, 401)),
    (INGRESS, LAN, "172.30.32.2", {"X-Ingress-Path": "/api/hassio_ingress/a/../b"}, (404, 401, 401, 401)),
    (INGRESS, LAN, "172.30.32.2", {"Host": "homeassistant.local:8123"}, (421, 421, 421, 421)),
    (INGRESS, LAN, "172.30.32.3", INGRESS_PATH, (404, 401, 401, 401)),
    (INGRESS, LAN, "127.0.0.1", {}, (404, 200, 200, 200)),
    (f"{INGRESS}, {WITH_TOKEN}", LAN, "172.30.32.2", INGRESS_PATH, (404, 200, 200, 200)),
    (f"{INGRESS}, {WITH_TOKEN}", LAN, "192.0.2.7", BEARER, (404, 200, 200, 200)),
    (f"{INGRESS}, {WITH_TOKEN}", LAN, "127.0.0.1", {}, (404, 401, 401, 401)),
    ("ingress: 127.0.0.1", LOCAL, "127.0.0.1", {}, (404, 401, 401, 401)),
    # read-only
    ("read_only: true", LOCAL, "127.0.0.1", {}, (404, 200, 403, 200)),
    (f"read_only: true, {WITH_TOKEN}", LAN, "192.0.2.7", BEARER, (404, 200, 403, 200)),
    (f"read_only: true, {WITH_TOKEN}", LAN, "192.0.2.7", {}, (404, 401, 401, 401)),
]


@pytest.mark.parametrize("row", TABLE, ids=repr)
async def test_access_table(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    """Each kind of visitor is answered as the table says, by page, data, command and live stream alike."""
    settings, listen, peer, headers, expected = row
    async with visited(monkeypatch, settings, listen) as visits:
        codes = [
            await visits.ask(path, "POST" if what == "command" else "GET", peer=peer, headers={**COMMAND, **headers})
            for what, path in PATHS.items()
        ]
    assert tuple(answer.status for answer in codes) == expected
    for answer in codes:
        assert answer.status == 200 or answer.json()["error"]


def test_table_is_long_enough() -> None:
    """The table has the rows that the design asks for, none twice."""
    assert len(TABLE) >= 60
    assert len({repr(row) for row in TABLE}) == len(TABLE)


async def test_health_is_open_under_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was open stays open, also where the console is off, and whatever name, origin and address ask."""
    async with visited(monkeypatch, "enabled: false") as visits:
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await visits.ask(path, "PUT", peer="192.0.2.7", headers={"Host": "x.example", "Origin": "null"})
            assert answer.status == 405


# ── the form of requests ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        ({}, {}, 403),
        ({"X-Oneweb-Console": "0"}, {}, 403),
        (COMMAND, {}, 200),
        (COMMAND, {"json": {}}, 200),
        (COMMAND, {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        (COMMAND, {"data": {"a": "b"}}, 415),
        (COMMAND, {"data": b"{}", "headers": {"Content-Type": "application/json; charset=utf-8"}}, 200),
        (COMMAND, {"json": {"a": "x" * 4096}}, 413),
        (COMMAND, {"data": b"x" * 4096, "headers": {"Content-Type": "application/json"}}, 200),
    ],
)
async def test_command_needs_its_form(
    monkeypatch: pytest.MonkeyPatch, headers: Mapping[str, str], options: dict[str, Any], expected: int
) -> None:
    """A command needs the header that no other site can send, JSON, and at most 4096 bytes."""
    own = dict(options)
    headers = {**headers, **own.pop("headers", {})}
    async with visited(monkeypatch) as visits:
        answer = await visits.ask(PATHS["command"], "POST", headers=headers, **own)
        assert answer.status == expected


async def test_body_of_unknown_length_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not say how long it is ends at the same limit."""

    async def parts() -> Any:
        for _ in range(5):
            yield b"x" * 1000

    async with visited(monkeypatch) as visits:
        headers = {**COMMAND, "Content-Type": "application/json"}
        answer = await visits.ask(PATHS["command"], "POST", headers=headers, data=parts())
        assert answer.status == 413


async def test_right_bearer_needs_no_header_and_a_session_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts with the token may leave out X-Oneweb-Console; who is signed in by a cookie may not."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        assert (await visits.ask(PATHS["command"], "POST", headers=BEARER)).status == 200
        cookie = await signed_in(visits)
        assert (await visits.ask(PATHS["command"], "POST", headers=cookie)).status == 403
        assert (await visits.ask(PATHS["command"], "POST", headers={**cookie, **COMMAND})).status == 200


async def test_unknown_routes_answer_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is a 404 or 405 with a sentence, and below /api/v1 only for who is signed in."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        for path, status in (("/nothing", 404), ("/api/v1/nothing", 401), ("/api/v1", 401), ("/api/v2/x", 404)):
            assert (await visits.ask(path)).status == status
        assert (await visits.ask("/api/v1/nothing", headers=BEARER)).status == 404
        wrong = await visits.ask("/api/v1/bridge", "POST", headers=BEARER)
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD")
        assert wrong.json()["error"]
        for path in ("/%61pi/v1/bridge", "/api/v1/../v1/bridge", "//api/v1/bridge", "/api/v1//bridge"):
            assert (await visits.ask(path)).status in (401, 404)


# ── signing in ─────────────────────────────────────────────────────────────────────────────────


async def sign_in(visits: Visits, token: str = TOKEN, **options: Any) -> Answer:
    headers = {**COMMAND, **options.pop("headers", {})}
    return await visits.ask(access.SESSION, "POST", headers=headers, json={"token": token}, **options)


async def signed_in(visits: Visits, **options: Any) -> dict[str, str]:
    """The Cookie header of a new session."""
    answer = await sign_in(visits, **options)
    assert answer.status == 200
    (cookie,) = answer.cookies
    return {"Cookie": f"{cookie.key}={cookie.value}"}


async def data_status(visits: Visits, headers: Mapping[str, str], **options: Any) -> int:
    return (await visits.ask(PATHS["data"], headers=headers, **options)).status


async def test_session_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version and instance are told to who is signed in, the rest to everybody."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        before = (await visits.ask(access.SESSION)).json()
        assert before == {"signed_in": False, "read_only": False, "base": "/"}
        cookie = await signed_in(visits)
        after = (await visits.ask(access.SESSION, headers=cookie)).json()
        assert after == {"signed_in": True, "read_only": False, "version": "1.2.3", "instance": "main", "base": "/"}


async def test_session_cookie_cannot_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie is out of reach of scripts, other sites and plain HTTP, and bound to base path and port."""
    async with visited(monkeypatch, PROXIED, "0.0.0.0:8480") as visits:
        plain = (await sign_in(visits)).cookies[0]
        assert (plain.key, plain["path"], plain["httponly"], plain["samesite"], plain["secure"], plain["domain"]) == (
            "oneweb_console_8480",
            "/",
            True,
            "Strict",
            "",
            "",
        )
        assert len(plain.value) == 43
        https = {"X-Forwarded-Proto": "https", "Host": "bridge.example.net"}
        own = (await sign_in(visits, peer="10.0.0.9", headers=https)).cookies[0]
        assert (own.key, own["path"], own["secure"]) == ("__Host-oneweb_console_8480", "/", True)
        below = {**https, "X-Forwarded-Prefix": "/oneweb"}
        own = (await sign_in(visits, peer="10.0.0.9", headers=below)).cookies[0]
        assert (own.key, own["path"], own["secure"]) == ("__Secure-oneweb_console_8480", "/oneweb/", True)
        # Neither header counts where no proxy is trusted.
        own = (await sign_in(visits, peer="192.0.2.7", headers={**below, "Host": "[::1]"})).cookies[0]
        assert (own.key, own["path"], own["secure"]) == ("oneweb_console_8480", "/", "")


@pytest.mark.parametrize("prefix", ["oneweb", "/one web", "/a/../b", "//evil.example", "/a;b", "/a?b", "/a%2Fb", "/"])
async def test_prefix_that_is_no_plain_path_is_ignored(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Only a plain path becomes the base."""
    async with visited(monkeypatch, "trusted_proxies: [10.0.0.1]") as visits:
        answer = await visits.ask(access.SESSION, peer="10.0.0.1", headers={"X-Forwarded-Prefix": prefix})
        assert answer.json()["base"] == "/"


async def test_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session ends by its time, at sign-out, and when the token changes; not when the address does."""
    async with visited(monkeypatch, f"{WITH_TOKEN}, session: 1h") as visits:
        cookie = await signed_in(visits)
        assert await data_status(visits, cookie, peer="198.51.100.3") == 200
        visits.at += 3599.0
        assert await data_status(visits, cookie) == 200
        visits.at += 1.0
        assert await data_status(visits, cookie) == 401

        cookie, other = await signed_in(visits), await signed_in(visits)
        left = await visits.ask(access.SESSION, "DELETE", headers={**cookie, **COMMAND})
        assert (left.status, left.body) == (204, b"")
        assert left.cookies[0]["max-age"] == "0"
        assert await data_status(visits, cookie) == 401
        assert await data_status(visits, other) == 200

        visits.console.reconfigure(parse(f"console: {{{WITH_TOKEN}, read_only: true}}", {}))
        assert await data_status(visits, other) == 200
        visits.console.reconfigure(parse("console: {token: another-token-of-16}", {}))
        assert await data_status(visits, other) == 401


async def test_signing_in_needs_the_form_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form of another site cannot sign in, and a body that is no token is refused in words."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        assert (await visits.ask(access.SESSION, "POST", json={"token": TOKEN})).status == 403
        assert (await sign_in(visits, headers={"Sec-Fetch-Site": "cross-site"})).status == 403
        assert (await visits.ask(access.SESSION, "POST", headers=COMMAND, json={"tokens": TOKEN})).status == 400
        assert (await visits.ask(access.SESSION, "POST", headers=COMMAND, json={"token": 5})).status == 400
        assert (await visits.ask(access.SESSION, "DELETE", headers=COMMAND)).status == 401


# ── guessing ───────────────────────────────────────────────────────────────────────────────────

WRONG = {"Authorization": "Bearer wrong"}


async def test_guessing_ends_after_five_wrong_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five wrong tokens within a minute, by sign-in and Bearer together; then not even the right one is looked at."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        cookie = await signed_in(visits)
        for _ in range(3):
            refused = await visits.ask(PATHS["data"], headers=WRONG, peer="192.0.2.7")
            assert (refused.status, "token is wrong" in refused.json()["error"]) == (401, True)
            visits.at += 1.0
        for _ in range(2):
            assert (await sign_in(visits, "wrong", peer="192.0.2.7")).status == 401
        for refused in (
            await visits.ask(PATHS["data"], headers=BEARER, peer="192.0.2.7"),
            await visits.ask(PATHS["data"], peer="192.0.2.7"),
            await sign_in(visits, peer="192.0.2.7"),
        ):
            assert (refused.status, refused.headers["Retry-After"]) == (429, "57")
            assert "57 s" in refused.json()["error"]
        assert await data_status(visits, cookie, peer="192.0.2.7") == 200
        assert await data_status(visits, BEARER, peer="192.0.2.8") == 200
        assert (await visits.ask(access.SESSION, peer="192.0.2.7")).status == 200
        visits.at += 57.0
        assert await data_status(visits, BEARER, peer="192.0.2.7") == 200


async def test_guesses_are_counted_by_who_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 counts by /64; behind a trusted proxy the address counts that it has seen, not what a client wrote."""
    async with visited(monkeypatch, PROXIED) as visits:
        for last in range(5):
            await data_status(visits, WRONG, peer=f"2001:db8:0:1::{last}")
        assert await data_status(visits, BEARER, peer="2001:db8:0:1:ffff::1") == 429
        assert await data_status(visits, BEARER, peer="2001:db8:0:2::1") == 200

        for first in range(5):
            forwarded = {"X-Forwarded-For": f"203.0.113.{first}, 198.51.100.1, 10.7.7.7"}
            await data_status(visits, {**WRONG, **forwarded}, peer="10.0.0.9")
        assert await data_status(visits, {**BEARER, "X-Forwarded-For": "198.51.100.1"}, peer="10.0.0.9") == 429
        assert await data_status(visits, {**BEARER, "X-Forwarded-For": "198.51.100.2"}, peer="10.0.0.9") == 200


async def test_wrong_tokens_are_logged_without_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the address and not the token; where no token is set nothing is counted."""
    async with visited(monkeypatch, WITH_TOKEN) as visits:
        await data_status(visits, {"Authorization": "Bearer almost-the-token"}, peer="192.0.2.7")
        await sign_in(visits, "almost-the-token", peer="192.0.2.8")
    assert [record.getMessage() for record in caplog.records if "token" in record.getMessage()] == [
        "a wrong token came from 192.0.2.7",
        "a wrong token came from 192.0.2.8",
    ]
    assert "almost" not in caplog.text
    async with visited(monkeypatch) as visits:
        for _ in range(6):
            assert (await sign_in(visits, "wrong")).status == 401
        assert await data_status(visits, WRONG) == 200


async def test_one_address_cannot_ask_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hundred-and-first request within a second is refused, and others are not."""
    async with visited(monkeypatch) as visits:
        for _ in range(100):
            visits.console.gate.check(facts(), visits.at)
        refused = await visits.ask("/")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        assert (await visits.ask("/nothing", peer="192.0.2.7")).status == 404
        assert (await visits.ask("/static/app.js?v=old")).status == 429
        visits.at += 1.0
        assert (await visits.ask("/nothing")).status == 404


async def test_files_of_several_pages_that_open_at_once_all_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page names, by their version, are neither counted nor refused."""
    async with visited(monkeypatch) as visits:
        page = (await visits.ask("/")).body.decode()
        files = re.findall(r'(?:src|href)="(static/[\w./-]+\?v=\w+)"', page)
        assert len(files) > 10
        for _ in range(100 // len(files) + 1):
            assert {(await visits.ask(f"/{file}")).status for file in files} == {200}
        for _ in range(99):
            assert (await visits.ask("/nothing")).status == 404
        assert (await visits.ask("/nothing")).status == 429
        assert {(await visits.ask(f"/{file}")).status for file in files} == {200}


def facts(**changes: Any) -> access.RequestFacts:
    return access.RequestFacts(
        **{"method": "GET", "path": "/", "peer": "127.0.0.1", "headers": {"host": "localhost"}, **changes}
    )


def test_what_is_remembered_of_visitors_is_bounded() -> None:
    """Neither addresses nor sessions fill the memory: the oldest is forgotten for the newest."""
    times, sessions = RecentTimes(1, 60.0), Sessions()
    for number in range(MAX_ADDRESSES + 1):
        times.add(str(number), 0.0)
    assert times.wait("0", 1.0) == 0.0
    assert times.wait("1", 1.0) == 59.0
    for number in range(1001):
        sessions.add(str(number), 10.0)
    assert not sessions.has("0", 1.0)
    assert sessions.has("1", 1.0)


# ── answers ────────────────────────────────────────────────────────────────────────────────────

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; ",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "",
}


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/nothing.js", "/api/v1/session", "/api/v1/bridge"])
async def test_every_answer_has_the_headers(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Pages, data and refusals carry the policy; none says what serves it, or lets another site read."""
    async with visited(monkeypatch) as visits:
        answer = await visits.ask(path, headers={"Origin": f"http://localhost:{visits.port}"})
        for name, begin in HEADERS.items():
            assert answer.headers[name].startswith(begin), name
        assert not {"Server", "Access-Control-Allow-Origin"} & {*answer.headers}
        assert (answer.headers.get("Cache-Control") == "no-store") is path.startswith("/api")


async def test_frames_are_the_ingress_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Home Assistant shows the page in a frame of its own origin; nobody else may."""
    async with visited(monkeypatch, INGRESS, LAN) as visits:
        inside = await visits.ask("/", peer="172.30.32.2", headers={"Host": "ha.local", **INGRESS_PATH})
        outside = await visits.ask("/", peer="172.30.32.2", headers={"Host": "192.0.2.1"})
        assert "frame-ancestors 'self';" in inside.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none';" in outside.headers["Content-Security-Policy"]
        assert "Cross-Origin-Opener-Policy" not in outside.headers
        base = (await visits.ask(access.SESSION, peer="172.30.32.2", headers=INGRESS_PATH)).json()["base"]
        assert base == "/api/hassio_ingress/a_b-C9/"


# ── the configuration ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("token: fifteen-letters", "console.token"),
        ("token: 'with spaces in its text'", "console.token"),
        ("hosts: ['bridge.example.net:8480']", "console.hosts"),
        ("hosts: ['https://bridge.example.net']", "console.hosts"),
        ("trusted_proxies: [proxy.example.net]", "console.trusted_proxies"),
        ("ingress: homeassistant", "console.ingress"),
        ("session: 0s", "console.session"),
        ("tokens: x", "console.tokens"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, key: str) -> None:
    """Each mistake is one sentence that names its key, and never the token."""
    with pytest.raises(ConfigError, match=key) as refusal:
        parse(f"console: {{{text}}}", {})
    assert "fifteen" not in str(refusal.value)
    assert "spaces in" not in str(refusal.value)


def test_token_is_one_of_the_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command prints the token: it is masked like every other secret."""
    monkeypatch.setattr("oneweb_bridge.cli.logs.set_up", lambda *_: None)
    path, masks = tmp_path / "bridge.yaml", Masks()
    path.write_text(f"console: {{token: {TOKEN}}}")
    loading.load_config(argparse.Namespace(config=path, log_level=None, log_format=None), masks)
    assert masks.mask_text(f"echo {TOKEN}") == "echo ***"


async def test_slow_body_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who announces a body and does not send it is refused after a while, and the connection is closed."""
    monkeypatch.setattr("oneweb_bridge.web.console.BODY_TIMEOUT_S", 0.05)
    async with visited(monkeypatch) as visits:
        reader, writer = await asyncio.open_connection("127.0.0.1", visits.port)
        writer.write(
            b"POST /api/v1/calls/x/poll HTTP/1.1\r\nHost: localhost\r\nX-Oneweb-Console: 1\r\n"
            b"X-Test-Peer: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        )
        with contextlib.suppress(ConnectionError):
            assert (await reader.readline()).split()[1] == b"400"
        writer.close()
