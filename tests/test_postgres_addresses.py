"""Addresses of PostgreSQL: what libpq cannot read is a sentence without the address, several servers are taken."""

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from oneweb_bridge.cli.main import main
from oneweb_bridge.config.masks import Masks, secrets_of_state
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.rules import has_readable_servers
from oneweb_bridge.config.schema import Secret, State
from oneweb_bridge.store import places
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.holders import read_holders
from oneweb_bridge.store.lease import Holder, open_leases
from oneweb_bridge.store.server import Server
from oneweb_bridge.store.server_check import look_at_server

UNREADABLE = (
    "postgresql://u:s3cr%et-word@h/d",
    "postgresql://u:s3cr%et-word@h/d?sslmode=require",
    "postgresql://h/d?sslmod=s3cr-et-word",
    "postgresql://h/d?password=s3cr%et-word",
)


async def claim(url: str) -> None:
    async with open_leases(url, Holder("worker", "start", 15.0)) as leases:
        await leases.claim("main")


async def renew(url: str) -> None:
    async with open_leases(url, Holder("worker", "start", 15.0)) as leases:
        await leases.renew(["main"])


async def read(url: str) -> None:
    async with places.open_connection(Server(url, "main"), read_only=True):
        pass


def read_in_thread(url: str) -> None:
    with places.open_reader(Server(url, "main")):
        pass


WAYS: dict[str, Callable[[str], object]] = {
    "holders": read_holders,
    "check": lambda url: look_at_server(url, "main"),
    "claim": lambda url: asyncio.run(claim(url)),
    "renew": lambda url: asyncio.run(renew(url)),
    "read": lambda url: asyncio.run(read(url)),
    "thread": read_in_thread,
}


@pytest.mark.parametrize("url", UNREADABLE)
@pytest.mark.parametrize("way", list(WAYS))
def test_address_that_libpq_cannot_read_is_not_quoted(way: str, url: str) -> None:
    """Whoever connects says that its parameters are wrong, and nothing that may be a password."""
    parse(f"state: {{url: '{url}'}}", {})
    with pytest.raises(StoreError, match=r"^state\.url: its parameters are not those of libpq") as raised:
        WAYS[way](url)
    assert "s3cr" not in str(raised.value)
    assert "word" not in str(raised.value)


@pytest.mark.parametrize("option", ["password", "sslpassword"])
def test_password_in_a_parameter_is_masked(option: str) -> None:
    """It is a secret of its own, as it stands there and as the server gets it."""
    masks = Masks()
    masks.add_secrets(*secrets_of_state(State(path=None, url=Secret(f"postgresql://h/d?a=b&{option}=s3%2Fcret"))))
    assert masks.mask_text("a s3%2Fcret b s3/cret c") == "a *** b *** c"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pw@a.example.net:5432,b.example.net:5433/d?target_session_attrs=read-write",
        "postgresql://a,b:5433/d",
        "postgresql://[::1]:5432,[::2]/d",
        "postgresql://a,[::2]:5433/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://u@/d",
        "postgresql://a",
    ],
)
def test_several_servers_are_taken(url: str) -> None:
    """As libpq does, with a port for each of them or for none; `migrate` takes the same."""
    assert parse(f"state: {{url: '{url}'}}", {}).state.url == url


@pytest.mark.parametrize(
    "url", ["postgresql://a:5432,b:x/d", "postgresql://a:1,:2/d", "postgresql://u:p#x@h/d", "postgresql://a:99999,b/d"]
)
def test_server_that_is_none_is_refused(url: str) -> None:
    """A port is a number, and has a host."""
    assert not has_readable_servers(url)


def test_history_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the driver it is a sentence, as for every command."""
    file = tmp_path / "bridge.yaml"
    file.write_text("api: {client_id: a, client_secret: b}\nstate: {url: 'postgresql://h/d'}\n")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else find(name))
    assert main(["history", "-c", str(file), "--imei", "1"]) == 2
    assert 'pip install "oneweb-bridge[postgres]"' in capsys.readouterr().err
