"""TLS on both sides: whom the bridge trusts, what it says when something is wrong, and renewed files."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from aiohttp import web
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode

from oneweb_bridge import tls
from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.api.errors import Unavailable
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Mqtt, Tls
from oneweb_bridge.demo import mosquitto as broker
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection

SERVERS = {
    "good": ("subjectAltName=DNS:localhost,IP:127.0.0.1", "-days 2"),
    # Newer versions of openssl refuse to make one that ends before it begins.
    "expired": ("subjectAltName=DNS:localhost", "-days 0"),
    "elsewhere": ("subjectAltName=DNS:elsewhere.example.org", "-days 2"),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("abandoned_sockets"),
]


@pytest.fixture(autouse=True)
def patient_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy broker may take longer than a user should wait; only what is refused counts here."""
    monkeypatch.setattr("oneweb_bridge.mqtt.link.CONNECT_TIMEOUT_S", 60.0)


def openssl(place: Path, line: str) -> None:
    """Runs openssl in a folder."""
    subprocess.run(["openssl", *line.split()], cwd=place, check=True, capture_output=True, timeout=100)


KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def authority(place: Path, name: str) -> None:
    """A CA of its own: NAME.crt and NAME.key."""
    usage = "-addext keyUsage=critical,keyCertSign,cRLSign"
    openssl(place, f"req -x509 {KEY} -days 9 -subj /CN={name} {usage} -keyout {name}.key -out {name}.crt")


def certified(place: Path, ca: str, name: str, extension: str, days: str = "-days 2") -> None:
    """A certificate that a CA has signed: NAME.crt and NAME.key."""
    openssl(place, f"req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
    (place / f"{name}.ext").write_text(
        f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extension}\n", encoding="ascii"
    )
    signer = f"-CA {ca}.crt -CAkey {ca}.key -CAcreateserial"
    openssl(place, f"x509 -req -in {name}.csr {signer} {days} -extfile {name}.ext -out {name}.crt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CAs, servers of the first in all conditions, and clients of both."""
    place = tmp_path_factory.mktemp("certificates")
    for ca in ("ca", "other"):
        authority(place, ca)
    for name, (extension, days) in SERVERS.items():
        certified(place, "ca", name, extension, days)
    certified(place, "ca", "client", "extendedKeyUsage=clientAuth")
    certified(place, "other", "stranger", "extendedKeyUsage=clientAuth")
    return place


# ── the broker ─────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def mosquitto(made: Path, server: str, *lines: str) -> AsyncIterator[int]:
    """A broker that shows one of the certificates. The files are copied, for the user that root's mosquitto becomes."""
    with harness_folder() as place:
        for file in ("ca.crt", f"{server}.crt", f"{server}.key"):
            shutil.copy(made / file, place / file)
            (place / file).chmod(0o644)
        port = broker.free_port()
        config = place / "mosquitto.conf"
        config.write_text(
            "\n".join(
                (
                    f"listener {port} 127.0.0.1\nallow_anonymous true\ncafile {place}/ca.crt",
                    f"certfile {place}/{server}.crt\nkeyfile {place}/{server}.key",
                    *lines,
                )
            )
        )
        async with started(config, port):
            yield port


@contextlib.contextmanager
def harness_folder() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="oneweb-bridge-tls-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.asynccontextmanager
async def started(config: Path, port: int) -> AsyncIterator[None]:
    program = broker.find_mosquitto()
    assert program
    process = await asyncio.create_subprocess_exec(program, "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(60):
            while not await reachable(port):
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()


async def reachable(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def settings(made: Path, port: int, **changes: Any) -> Mqtt:
    """The broker's section of the configuration."""
    given: dict[str, Any] = {"ca_file": str(made / "ca.crt"), **changes.pop("tls", {})}
    return Mqtt(host="localhost", port=port, tls=Tls(enabled=True, **given), **changes)


async def round_trip(given: Mqtt, patience: float = 60.0) -> None:
    """Connects, and has ten messages back that are longer than a record of TLS. Raises what a connection raises."""
    wanted = [b"%d" % number * 30_000 for number in range(10)]
    async with MqttConnection(given, "tls-test", will=Message("will", b"{}", retain=False)) as link:
        await link.subscribe_to("tls/test")
        for payload in wanted:
            link.send(Message("tls/test", payload, retain=False))
        async with asyncio.timeout(patience):
            received = []
            async for message in link.messages:
                received.append(bytes(message.payload))
                if len(received) == len(wanted):
                    break
    assert received == wanted


async def refusal(given: Mqtt) -> str:
    """The sentence that the log has when a connection fails, which must be soon."""
    async with asyncio.timeout(8):
        try:
            await round_trip(given)
        except (aiomqtt.MqttError, OSError) as error:
            return describe_connection_error(error)
    raise AssertionError("the connection was accepted")


@contextlib.asynccontextmanager
async def through_websockets(made: Path, port: int, path: str = "/mqtt") -> AsyncIterator[int]:
    """A web server that asks for a client certificate and passes what comes over websockets on to a broker.

    On another path than this one there is nothing.
    """

    async def handle(request: web.Request) -> web.WebSocketResponse:
        there = web.WebSocketResponse(protocols=("mqtt",))
        await there.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while chunk := await reader.read(65536):
                await there.send_bytes(chunk)

        answers = asyncio.create_task(back(), name="websocket")
        async for message in there:
            writer.write(message.data)
        answers.cancel()
        writer.close()
        return there

    site = web.Application()
    site.add_routes([web.get(path, handle)])
    runner = web.AppRunner(site)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(made / "good.crt", made / "good.key")
    listening = web.TCPSite(runner, "127.0.0.1", free_port := broker.free_port(), ssl_context=context)
    await listening.start()
    try:
        yield free_port
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_broker_with_own_ca_and_client_certificate(made: Path, transport: Any, protocol: Any) -> None:
    """With own CA and a client certificate messages go both ways, over TCP and over websockets."""
    own = {"cert_file": str(made / "client.crt"), "key_file": str(made / "client.key")}
    async with contextlib.AsyncExitStack() as stack:
        if transport == "tcp":
            port = await stack.enter_async_context(mosquitto(made, "good", "require_certificate true"))
        else:
            await stack.enter_async_context(broker.run_mosquitto(plain := broker.free_port()))
            port = await stack.enter_async_context(through_websockets(made, plain))
        await round_trip(settings(made, port, tls=own, transport=transport, protocol=protocol))


async def test_websockets_are_where_the_path_says(made: Path) -> None:
    """The configured path is asked for (RabbitMQ has /ws); on another there is no broker, which is a sentence."""
    own = {"cert_file": str(made / "client.crt"), "key_file": str(made / "client.key")}
    async with broker.run_mosquitto(plain := broker.free_port()), through_websockets(made, plain, "/ws") as port:
        await round_trip(settings(made, port, tls=own, transport="websockets", path="/ws"))
        assert "websocket" in (await refusal(settings(made, port, tls=own, transport="websockets"))).casefold()


@pytest.mark.parametrize(
    ("server", "files", "sentence"),
    [
        ("expired", {}, "its certificate has expired"),
        ("elsewhere", {}, "its certificate is for another name"),
        ("good", {"ca_file": "other.crt"}, "its certificate comes from a CA that is not known here"),
        ("good", {"ca_file": None}, "its certificate comes from a CA that is not known here"),
    ],
)
async def test_broker_that_is_not_trusted_is_told_in_words(
    made: Path, server: str, files: dict[str, str | None], sentence: str
) -> None:
    """An expired certificate, another name, an unknown CA: each is one sentence."""
    named = {key: name and str(made / name) for key, name in files.items()}
    async with mosquitto(made, server) as port:
        error = await refusal(settings(made, port, tls=named))
    assert sentence in error
    assert "_ssl.c" not in error


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("newest", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize(
    ("client", "sentence"), [("stranger", "client certificate (cert_file)"), (None, "client certificate")]
)
async def test_refused_client_certificate_is_told_in_words(
    made: Path, newest: str, client: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    """A client certificate of an unknown CA, and none where one is asked for: told at once, whatever the TLS.

    Where the first packet is late and nothing was read before it, the write is the first to fail.
    """
    if late:
        at_once = Paho._send_connect

        def send_connect(self: Paho, keepalive: int) -> MQTTErrorCode:
            time.sleep(0.3)
            return at_once(self, keepalive)

        monkeypatch.setattr(Paho, "_send_connect", send_connect)
        monkeypatch.setattr(MqttConnection, "_on_socket_open", lambda *_: None)
    own = {"cert_file": str(made / f"{client}.crt"), "key_file": str(made / f"{client}.key")} if client else {}
    async with mosquitto(made, "good", "require_certificate true", f"tls_version {newest}") as port:
        assert sentence in await refusal(settings(made, port, tls=own))


async def test_broker_without_tls_is_told_in_words(made: Path) -> None:
    """TLS to a port that speaks plain MQTT is one sentence."""
    port = broker.free_port()
    async with broker.run_mosquitto(port):
        assert "TLS" in await refusal(settings(made, port))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"ca_file": "no.crt"}, "mqtt.tls.ca_file: {made}/no.crt cannot be read: No such file or directory"),
        ({"ca_file": "ca.key"}, "mqtt.tls.ca_file: {made}/ca.key has no certificate in PEM form"),
        ({"cert_file": "no.crt"}, "mqtt.tls.cert_file: {made}/no.crt cannot be read"),
        ({"cert_file": "client.crt"}, "expected a certificate and its key, in PEM form, without a password"),
        ({"cert_file": "client.crt", "key_file": "good.key"}, "does not belong to the key in {made}/good.key"),
        ({"cert_file": "client.crt", "key_file": "locked.key"}, "without a password"),
    ],
)
async def test_file_that_cannot_be_used_is_named(made: Path, files: dict[str, str], sentence: str) -> None:
    """A certificate or key that is missing, is something else, does not fit or has a password: key, file and why."""
    openssl(made, "ec -in client.key -aes128 -passout pass:geheim -out locked.key")
    named = {key: str(made / name) for key, name in files.items()}
    assert sentence.format(made=made) in await refusal(settings(made, broker.free_port(), tls=named))


async def test_renewed_files_count_from_the_next_connection(made: Path, tmp_path: Path) -> None:
    """When the CA file is replaced on disk, the next connection trusts the new one, without a restart."""
    ca = tmp_path / "ca.crt"
    shutil.copy(made / "other.crt", ca)
    async with mosquitto(made, "good") as port:
        given = settings(made, port, tls={"ca_file": str(ca)})
        assert "CA" in await refusal(given)
        shutil.copy(made / "ca.crt", ca)
        await round_trip(given)


# ── the API ────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def api_server(made: Path, server: str) -> AsyncIterator[str]:
    """An HTTPS server that answers everything with an empty list."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made / f"{server}.crt", made / f"{server}.key")
    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as listening:
        yield f"https://localhost:{listening.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def asking(url: str, ca_file: Path | None) -> AsyncIterator[ApiClient]:
    named = {"ca_file": str(ca_file)} if ca_file else {}
    given: dict[str, Any] = {"base_url": url, "client_id": "i", "client_secret": "s", **named}
    async with open_api(parse(str({"api": given}), {}).api) as connection:
        yield connection


async def complaint(connection: ApiClient) -> str:
    with pytest.raises(Unavailable) as caught:
        await connection.request("POST", "/x")
    return str(caught.value)


@pytest.mark.parametrize(
    ("server", "ca", "sentence"),
    [
        ("expired", "ca.crt", "its certificate has expired"),
        ("elsewhere", "ca.crt", "its certificate is for another name"),
        ("good", "other.crt", "its certificate comes from a CA that is not known here"),
        ("good", None, "its certificate comes from a CA that is not known here"),
        ("good", "no.crt", "cannot be read: No such file or directory"),
        ("good", "ca.key", "ca.key has no certificate in PEM form"),
    ],
)
async def test_api_that_is_not_trusted_is_told_in_words(made: Path, server: str, ca: str | None, sentence: str) -> None:
    """An expired certificate, another name, an unknown CA, a CA file that cannot be used: each is one sentence."""
    async with api_server(made, server) as url, asking(url, made / ca if ca else None) as connection:
        error = await complaint(connection)
    assert sentence in error
    assert "_ssl.c" not in error


async def test_renewed_ca_file_of_the_api_needs_no_restart(made: Path, tmp_path: Path) -> None:
    """When `api.ca_file` is replaced on disk, the next request trusts the new one."""
    ca = tmp_path / "ca.crt"
    shutil.copy(made / "other.crt", ca)
    async with api_server(made, "good") as url, asking(url, ca) as connection:
        assert "CA" in await complaint(connection)
        shutil.copy(made / "ca.crt", ca)
        assert (await connection.get("/x")).body == b"[]"


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    """Both sides are spoken to with TLS 1.2 at least, and the name is checked."""
    for context in (tls.client_context("x", None), tls.TrustedCas("api.ca_file", None).context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
