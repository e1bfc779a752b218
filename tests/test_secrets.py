"""Planted canaries: the real bridge with a secret in every place, before an API that echoes all of them in every form.

What the bridge then writes, publishes, keeps, serves and prints is searched for each of them.
"""

import asyncio
import base64
import contextlib
import html
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import aiohttp
import pytest
import yaml
from aiohttp import web

from oneweb_bridge.cli import main as cli
from oneweb_bridge.demo import mosquitto
from tests import harness

CLIENT = "c4nary-client-id"
SECRET = 'c4nary-"quoted"-sécret/+='
ROTATED = "c4nary-rotated-secret&<b>"
PASSWORD = 'c4nary mqtt  "pass\\wörd'
NEWER_PASSWORD = "c4nary-newer-mqtt-password"
TOKENS = ["c4nary.token.one-~", "c4nary.token.two+/="]
PROXY_PASSWORD = "c4nary:proxy/pass"
NEWER_PROXY_PASSWORD = "c4nary-newer-proxy"


def pair(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


CANARIES = {
    "client id": CLIENT,
    "client secret": SECRET,
    "rotated secret": ROTATED,
    "MQTT password": PASSWORD,
    "newer MQTT password": NEWER_PASSWORD,
    "token": TOKENS[0],
    "second token": TOKENS[1],
    "proxy password": PROXY_PASSWORD,
    "newer proxy password": NEWER_PROXY_PASSWORD,
    "Basic": pair(CLIENT, SECRET),
    "rotated Basic": pair(CLIENT, ROTATED),
    "proxy's Basic": pair("me", PROXY_PASSWORD),
    "newer proxy's Basic": pair("me", NEWER_PROXY_PASSWORD),
}
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "UTF-8 JSON": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "address": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
}


def leaks(produced: dict[str, bytes]) -> list[str]:
    """Where which canary stands in which form."""
    return [
        f"{place}: {name} as {form}"
        for place, content in produced.items()
        for name, canary in CANARIES.items()
        for form, written in FORMS.items()
        if written(canary).encode() in content
    ]


def test_search_finds_every_canary_in_every_form() -> None:
    """The search itself misses nothing: each canary, in each form, is found where it was put."""
    for name, canary in CANARIES.items():
        for form, written in FORMS.items():
            text = f"x{written(canary)}x".encode()
            assert f"log: {name} as {form}" in leaks({"log": text})


# ── an API that cannot keep a secret ───────────────────────────────────────────────────────────

LATER = {"rotated secret", "newer MQTT password", "second token", "newer proxy password", "rotated Basic"}
"""What becomes known to the bridge with the second configuration, or was known to it alone."""


class Gossip:
    """The API and the proxy before it. Whatever it is asked, it repeats all secrets that it has heard of."""

    def __init__(self) -> None:
        self.url = ""
        self.headers_seen: set[str] = set()
        self.knows = {name: canary for name, canary in CANARIES.items() if name not in LATER | {"newer proxy's Basic"}}
        self._tokens = iter(["second token"])

    def learn_all(self) -> None:
        """From now on it repeats what was rotated too, and what was there before."""
        self.knows = dict(CANARIES)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One answer, by the end of the path."""
        self.headers_seen |= {name for name in ("Authorization", "Proxy-Authorization") if name in request.headers}
        last = request.path.rpartition("/")[2]
        former = f"Bearer {CANARIES['second token']}"
        if last != "world" and request.headers.get("Authorization") == former:
            return web.Response(status=401)
        if last == "token":
            token = CANARIES[next(self._tokens, "token")]
            return web.json_response({"access_token": token, "expires_in": 3600})
        return self._gossip(last)

    def _gossip(self, last: str) -> web.StreamResponse:  # noqa: PLR0911 - one for each kind of answer
        echo = " ".join(written(secret) for secret in self.knows.values() for written in (str, FORMS["base64"]))
        away = "/moved/" + "/".join(FORMS["address"](canary) for canary in self.knows.values())
        page = f"<html>{html.escape(echo)} {echo}</html>"
        match last:
            case "world":
                return web.json_response({})
            case "userTerminal":
                return web.json_response([{"id": "359235170006117", "name": "T"}])
            case "product":
                return web.json_response({"message": echo}, status=400)
            case "organization":
                return web.Response(text=page, content_type="text/html")
            case "geographicSite":
                return web.Response(status=302, headers={"Location": away})
            case "linkAvailability":
                return web.json_response({"error": echo}, status=403)
            case "signalQuality":
                return web.json_response({"oops": echo})
            case "resourceState":
                return web.json_response({"description": f"\n{echo}"}, status=422)
            case "traffic":
                return web.Response(text=f"[{json.dumps(echo)}", content_type="application/json")
            case "throughput":
                return web.json_response([{"noid": echo}])
            case _:
                return web.Response(text=echo, status=404)


@contextlib.asynccontextmanager
async def gossiping() -> AsyncIterator[Gossip]:
    gossip, app = Gossip(), web.Application()
    app.router.add_route("*", "/{path:.*}", gossip.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = mosquitto.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gossip.url = f"http://127.0.0.1:{port}"
    try:
        yield gossip
    finally:
        await runner.cleanup()


# ── the bridge that is told all of them ────────────────────────────────────────────────────────


class Secretive:
    """A bridge's configuration with a canary in every place, and the folders of what it may write."""

    def __init__(self, home: Path, url: str, port: int) -> None:
        self.etc, self.wrote = home / "etc", home / "wrote"
        self.etc.mkdir()
        self.wrote.mkdir()
        self.port, self.url, self.http = port, url, mosquitto.free_port()
        self.file = self.etc / "bridge.yaml"
        self.environment = {"ONEWEB_CLIENT_ID": CLIENT, "CREDENTIALS_DIRECTORY": str(self.etc / "credentials")}
        (self.etc / "credentials").mkdir()
        self.write("oauth2_client_credentials", SECRET, PASSWORD, PROXY_PASSWORD)

    def write(self, style: str, secret: str, password: str, proxy_password: str) -> None:
        """Writes the configuration anew. The password of the broker is a systemd credential, the secret a file."""
        (self.etc / "secret").write_text(secret + "\n", encoding="utf-8")
        (self.etc / "credentials" / "mqtt_password").write_text(password, encoding="utf-8")
        proxy = self.url.replace("://", f"://me:{quote(proxy_password, safe='')}@")
        auth = {"style": style} | ({"token_url": f"{self.url}/token"} if style.startswith("oauth") else {})
        api = {"base_url": self.url, "client_secret_file": "secret", "proxy": proxy, "auth": auth}
        tree = {
            "api": {**api, "rate_limit": {"min_interval": "1ms"}},
            "mqtt": {"host": "127.0.0.1", "port": self.port, "username": "me", "password_file": "mqtt_password"},
            "state": {"path": str(self.wrote / "bridge.db")},
            "http": {"listen": f"127.0.0.1:{self.http}"},
            "log": {"level": "debug"},
            "polling": {call: {"interval": "1h", "enabled": True} for call in harness.QUICK},
        }
        self.file.write_text(yaml.safe_dump(tree), encoding="utf-8")

    async def command(self, *words: str) -> bytes:
        """What a command prints, on both of its outputs."""
        _, out, err = await harness.command(*words, "-c", str(self.file), cwd=None, **self.environment)
        return f"{out}\n{err}".encode()

    async def served(self) -> dict[str, bytes]:
        """What the health endpoints say."""
        async with aiohttp.ClientSession() as session:
            return {
                path: await (await session.get(f"http://127.0.0.1:{self.http}{path}")).read()
                for path in ("/healthz", "/readyz", "/metrics")
            }

    def kept(self) -> dict[str, bytes]:
        """All that is on disk: database, its log, locks, bad answers, samples of explore."""
        return {str(path): path.read_bytes() for path in self.wrote.rglob("*") if path.is_file()}


STATES = "oneweb/bridge/polling/{}/state"
FAILING = ("products", "organizations", "sites", "ut_link_availability", "ut_signal_quality", "ut_resource_state")


async def test_no_canary_leaves_the_bridge(tmp_path: Path) -> None:
    """In no log, topic, database, kept answer, health page, output or process list is a secret, old or new."""
    port = mosquitto.free_port()
    async with gossiping() as gossip, mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        secretive = Secretive(tmp_path, gossip.url, port)
        async with harness.running(secretive.file, **secretive.environment) as bridge:
            await recorder.until(lambda: has_failed(recorder), 60)
            produced = await told_by(
                secretive, bridge, "before: ", ["check"], ["explore", "--save", str(secretive.wrote)]
            )
            gossip.learn_all()
            secretive.write("basic", ROTATED, NEWER_PASSWORD, NEWER_PROXY_PASSWORD)
            bridge.signal(signal.SIGHUP)
            async with asyncio.timeout(40):
                while bridge.text().count(": connected") < 2:
                    await asyncio.sleep(0.05)
            produced |= await told_by(secretive, bridge, "after: ", ["poll", *FAILING])
            produced["MQTT"] = b"\n".join(f"{topic} ".encode() + content for topic, content, _ in recorder.raw)
            produced["log"] = bridge.log.read_bytes()
            await bridge.stop()
        produced |= secretive.kept()

    assert leaks(produced) == []
    assert_it_was_worth_searching(gossip, produced)


def has_failed(recorder: harness.Recorder) -> bool:
    """Whether each call that the API betrays has said so."""
    return all("error" in recorder.retained.get(STATES.format(call), {}) for call in FAILING)


async def told_by(secretive: Secretive, bridge: harness.Process, when: str, *more: list[str]) -> dict[str, bytes]:
    """What commands print, pages say and the system shows, while the bridge runs."""
    commands = [*more, ["config"], ["status"], ["status", "--json"]]
    printed_by_command = await asyncio.gather(*(secretive.command(*words) for words in commands))
    outputs = {" ".join(words[:2]): printed for words, printed in zip(commands, printed_by_command, strict=True)}
    outputs |= await secretive.served() | {"cmdline": Path(f"/proc/{bridge.pid}/cmdline").read_bytes()}
    return {f"{when}{name}": printed for name, printed in outputs.items()}


def assert_it_was_worth_searching(gossip: Gossip, produced: dict[str, bytes]) -> None:
    """The secrets were sent, echoed, and masked where they would have stood: there was something to find."""
    assert gossip.headers_seen == {"Authorization", "Proxy-Authorization"}
    for place in ("log", "MQTT", "before: explore --save", "after: poll products", "after: status --json"):
        assert b"***" in produced[place], place
    answers = {Path(name).stem for name in produced if ".bad-answers" in name}
    assert {"products", "organizations", "sites", "ut_signal_quality"} <= answers
    assert any(b"***" in content for name, content in produced.items() if ".bad-answers" in name)


# ── mistakes in the configuration ──────────────────────────────────────────────────────────────

MISTAKES: dict[str, str] = {
    "user in the address": "api: {base_url: 'https://me:c4nary-here@api.example.net'}",
    "user in the token's address": "api: {auth: {token_url: 'https://me:c4nary-here@x.example.net/t'}}",
    "environment in a wrong place": "mqtt: {port: '${CANARY}'}",
    "environment as a list": "polling: {sites: {interval: '${CANARY}'}}",
    "file in a wrong form": "mqtt: {password_file: [c4nary-here]}",
    "star without quotes": "mqtt: {password: *c4nary-here}",
    "mark without quotes": "mqtt: {password: !c4nary-here x}",
    "plain connection": "mqtt: {host: b.example.net, username: me, password: c4nary-here}",
    "control character": 'api: {client_secret: "c4nary-here\\e"}',
    "both ways": "mqtt: {password: c4nary-here, password_file: x}",
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistake_in_the_configuration_shows_no_secret(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A configuration that is refused because of a secret, or beside one, is refused without showing it."""
    (tmp_path / "bridge.yaml").write_text(MISTAKES[mistake] + "\n", encoding="utf-8")
    for name in ("CANARY", "ONEWEB_CLIENT_SECRET"):
        monkeypatch.setenv(name, "c4nary-here")
    code = cli.main(["check", "-c", str(tmp_path / "bridge.yaml")])
    out, err = capfd.readouterr()

    assert code == 2
    assert "c4nary-here" not in out + err
    assert len(err.strip().splitlines()) == 1
