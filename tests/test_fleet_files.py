"""What is in deploy/fleet: compositions that are complete and locked down, and files that their programs take."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneweb_bridge import __version__
from oneweb_bridge.config.read import load
from oneweb_bridge.config.servers import server_name, servers_of
from tests import nats
from tests.test_deploy import DEPLOY, ROOT, composer, run

FLEET = DEPLOY / "fleet"
BROKERS = ("nats", "mosquitto")


class Composition:
    """The services of both files together, as compose merges them."""

    def __init__(self, broker: str) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.volumes: set[str] = set()
        self.secrets: dict[str, dict[str, str]] = {}
        for name in ("compose.yaml", f"compose.{broker}.yaml"):
            part = yaml.safe_load((FLEET / name).read_text(encoding="utf-8"))
            self.volumes |= set(part.get("volumes", {}))
            self.secrets |= part.get("secrets", {})
            for service, settings in part["services"].items():
                self.services.setdefault(service, {}).update(settings)


@pytest.mark.parametrize("broker", BROKERS)
def test_fleet_is_complete(broker: str) -> None:
    """PostgreSQL, two workers and brokers; what services name is there, and what they mount too."""
    composed = Composition(broker)
    assert {"postgres", "worker-a", "worker-b"} < composed.services.keys()
    documented = (FLEET / "README.md").read_text(encoding="utf-8")
    for service in composed.services.values():
        assert set(service.get("depends_on", ())) <= composed.services.keys()
        assert set(service.get("secrets", ())) <= composed.secrets.keys()
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            is_users = source.startswith("./secrets/") and f"`{source.removeprefix('./secrets/')}`" in documented
            assert is_users or source in composed.volumes or (source[0] == "." and (FLEET / source).exists()), mount
    for secret in composed.secrets.values():
        assert f"`{secret['file'].removeprefix('./secrets/')}`" in documented


@pytest.mark.parametrize("broker", BROKERS)
def test_fleet_is_locked_down_and_pinned(broker: str) -> None:
    """No root that can be written to, no capabilities, no way to new rights, and images of one release each."""
    for name, service in Composition(broker).services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"]), name
        if name.startswith("worker"):
            assert service["image"] == f"oneweb-bridge:{__version__}-postgres"
            assert (ROOT / service["build"]["args"]["LOCK"]).exists()
            assert f"COPY requirements.lock {service['build']['args']['LOCK']} " in (DEPLOY / "Dockerfile").read_text()


# As in test_deploy: Docker is no package that `make test` could install and run for everybody.
@pytest.mark.skipif(composer() is None, reason="no docker compose here; its files are read by the tests above")
@pytest.mark.parametrize("broker", BROKERS)
def test_fleet_is_accepted_by_compose(broker: str) -> None:
    """`docker compose config` takes them."""
    run(*(composer() or ()), "-f", "compose.yaml", "-f", f"compose.{broker}.yaml", "config", "--quiet", cwd=FLEET)


@pytest.mark.parametrize("broker", BROKERS)
def test_bridge_of_the_fleet_is_valid(broker: str, tmp_path: Path) -> None:
    """Its configuration is read, with the state on the server, and names each broker of the composition."""
    text = (FLEET / f"bridge.{broker}.yaml").read_text(encoding="utf-8")
    (tmp_path / "ca.crt").write_text("")
    for name, content in (
        ("client_secret", "s"),
        ("mqtt_password", "p"),
        ("state_url", "postgresql://bridge:p@postgres/oneweb"),
    ):
        (tmp_path / name).write_text(content)
    file = tmp_path / "bridge.yaml"
    file.write_text(text.replace("/run/secrets/", f"{tmp_path}/").replace("/etc/oneweb-bridge/", f"{tmp_path}/"))
    config = load(file, {"ONEWEB_CLIENT_ID": "id", "WORKER": "worker-b"})
    assert config.state.url is not None
    assert config.state.url.startswith("postgresql://")
    assert config.state.worker == "worker-b"
    hosts = {server_name(server).rpartition(":")[0] for server in servers_of(config.mqtt)}
    assert hosts == {name for name in Composition(broker).services if name.startswith(broker)}
    assert config.mqtt.protocol == ("3.1.1" if broker == "nats" else "5")


def test_lock_of_the_driver_is_that_of_the_tests() -> None:
    """The image for PostgreSQL has the driver that is tested, with the hashes of its files."""
    lock, tested = ((ROOT / name).read_text() for name in ("requirements-postgres.lock", "requirements-dev.lock"))
    blocks = re.findall(r"^psycopg.*?(?=^\w|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert [block.split("==")[0] for block in blocks] == ["psycopg", "psycopg-binary"]
    assert all(block.strip() in tested and "--hash=sha256:" in block for block in blocks)


@pytest.mark.nats
def test_nats_takes_its_configuration(tmp_path: Path) -> None:
    """`nats-server -t` has nothing to say of the shipped file with the users of the README and a certificate."""
    certificate = ["-subj", "/CN=nats-1", "-keyout", "server.key", "-out", "server.crt", "-days", "1"]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *certificate, cwd=tmp_path)
    text = nats.CONFIG.read_text().replace("/etc/nats/", f"{tmp_path}/")
    (tmp_path / "nats.conf").write_text(text)
    (tmp_path / "users.conf").write_text(nats.documented_users())
    program = nats.find_nats()
    assert program is not None
    done = subprocess.run(
        [program, "-t", "-c", str(tmp_path / "nats.conf")],
        env={**os.environ, "NATS_NAME": "nats-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stdout + done.stderr
