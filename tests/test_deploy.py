"""What is in deploy/: what can be run here is run, the rest is linted, or read and held against what it speaks of."""

import asyncio
import importlib.util
import re
import shutil
import stat
import subprocess
import sysconfig
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from oneweb_bridge import __version__
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.web import healthcheck
from tests import harness

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ADDON = DEPLOY / "homeassistant-addon"
DOCKERFILES = [DEPLOY / "Dockerfile", ADDON / "Dockerfile"]
COMPOSED = (["compose.yaml"], ["compose.yaml", "compose.home.yaml"])


def run(*words: str, cwd: Path = ROOT) -> str:
    """What a program says; it must end well."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# ── containers ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfile_passes_the_linter(path: Path) -> None:
    """The linter hadolint has nothing to say."""
    assert run(str(Path(sysconfig.get_path("scripts")) / "hadolint"), str(path)) == ""


def copied(dockerfile: Path) -> list[str]:
    """The names that a Dockerfile copies out of its context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_dockerfile_copies_what_is_there() -> None:
    """Everything that the image is made of is in the checkout, and what it runs with is pinned."""
    names = copied(DEPLOY / "Dockerfile")

    assert "requirements.lock" in names
    assert all((ROOT / name).exists() for name in names)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in names} == {line for line in ignored if line.startswith("!")}


def test_image_runs_without_rights() -> None:
    """The last stage of the bridge's own image has a user that is not root, a health check, and no build tools."""
    last = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1]

    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n.*oneweb_bridge\.web\.healthcheck", last, re.MULTILINE)
    assert "pip" not in last


@pytest.mark.parametrize("names", COMPOSED, ids="+".join)
def test_composition_is_complete(names: list[str]) -> None:
    """Volumes, secrets and dependencies that services name are there, and the project's files that they mount exist."""
    parts = [read(DEPLOY / name) for name in names]
    services = {name: service for part in parts for name, service in part["services"].items()}
    volumes = {name for part in parts for name in part.get("volumes", {})}

    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service.get("secrets", ())) <= parts[0]["secrets"].keys()
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            mine = source.startswith("./secrets/")  # the user's, made as README says
            assert mine or source in volumes or (source.startswith(".") and (DEPLOY / source).exists()), mount


def test_what_listens_and_polls_is_locked_down() -> None:
    """Broker and bridge have a root that cannot be written to, no capabilities and no way to new rights."""
    for name, service in read(DEPLOY / "compose.yaml")["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["image"].rpartition(":")[2] not in ("", "latest"), name


def test_image_has_the_version_of_the_package() -> None:
    """The tag, the add-on and the package have one version."""
    assert read(DEPLOY / "compose.yaml")["services"]["bridge"]["image"] == f"oneweb-bridge:{__version__}"
    assert read(ADDON / "config.yaml")["version"] == __version__


def composer() -> list[str] | None:
    """A client that can read compositions, where there is one."""
    for words in (["docker", "compose"], ["docker-compose"]):
        program = shutil.which(words[0])
        if (
            program
            and subprocess.run([*words, "version"], capture_output=True, check=False, timeout=100).returncode == 0
        ):
            return words
    return None


# Docker is no package that `make test` could install and run for everybody.
@pytest.mark.skipif(composer() is None, reason="no docker compose here; its files are read by the tests above")
@pytest.mark.parametrize("names", COMPOSED, ids="+".join)
def test_composition_is_accepted_by_compose(names: list[str]) -> None:
    """`docker compose config` takes them."""
    files = [word for name in names for word in ("-f", name)]
    run(*(composer() or ()), *files, "config", "--quiet", cwd=DEPLOY)


# ── systemd ────────────────────────────────────────────────────────────────────────────────────


# Containers and macOS have no systemd, and need none to run the bridge.
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say of the unit, with programs that exist (a container has no kill)."""
    text = (DEPLOY / "oneweb-bridge.service").read_text()
    unit = tmp_path / "oneweb-bridge.service"
    for program in ("/opt/oneweb-bridge/bin/oneweb-bridge", "/bin/kill"):
        assert program in text
        text = text.replace(program, "/bin/true")
    unit.write_text(text)

    assert "oneweb-bridge.service" not in run("systemd-analyze", "verify", "--man=no", str(unit))


# ── the Home Assistant add-on ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """run.py of the add-on."""
    spec = importlib.util.spec_from_file_location("addon_run", ADDON / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ELEMENT = r"(str|bool|url|port|password|int|float|email|list\(.+\)|match\(.+\))\??"
"""Types that the Supervisor knows for an option, without their ranges."""


def test_addon_has_what_the_supervisor_asks_for() -> None:
    """Its description has the needed keys, no key that gives it rights, and option types that the Supervisor knows."""
    options = read(ADDON / "config.yaml")

    assert {"name", "version", "slug", "description", "arch"} <= options.keys()
    assert set(options["arch"]) <= {"amd64", "aarch64"}
    assert re.fullmatch(r"[a-z0-9_]+", options["slug"])
    assert re.fullmatch(r"http://\[HOST\]:\[PORT:8480\]/healthz", options["watchdog"])
    assert "8480/tcp" in options["ports"]
    assert (options["ingress"], options["ingress_port"]) == (True, 8480)
    assert read(ADDON / "bridge.yaml")["console"] == {"ingress": "172.30.32.2"}
    assert not options.keys() & {"privileged", "full_access", "host_network", "hassio_api", "docker_api", "devices"}
    assert all(re.fullmatch(ELEMENT, kind) for kind in options["schema"].values())
    assert options["options"].keys() <= options["schema"].keys()


def test_options_are_explained_and_used(program: ModuleType) -> None:
    """Each option has a translation, a place in DOCS.md and a variable, and bridge.yaml reads every variable."""
    options = read(ADDON / "config.yaml")["schema"].keys()
    variables = set(re.findall(r"\$\{(\w+)", (ADDON / "bridge.yaml").read_text()))

    assert read(ADDON / "translations/en.yaml")["configuration"].keys() == options
    assert program.VARIABLES.keys() == options
    assert variables == {*program.VARIABLES.values(), "MQTT_ALLOW_PLAIN_PASSWORD"}
    assert all(f"`{option}`" in (ADDON / "DOCS.md").read_text() for option in options)


def test_packed_addon_is_all_that_its_image_needs(tmp_path: Path) -> None:
    """The packed folder has what the Dockerfile copies, and a second packing does not write over it."""
    run("sh", str(ADDON / "pack.sh"), str(tmp_path))
    made = tmp_path / "oneweb_bridge"

    assert all((made / name).exists() for name in copied(made / "Dockerfile"))
    assert {"config.yaml", "DOCS.md", "translations"} <= {path.name for path in made.iterdir()}
    with pytest.raises(AssertionError, match="is there already"):
        run("sh", str(ADDON / "pack.sh"), str(tmp_path))


SERVICE: dict[str, Any] = {
    "host": "core-mosquitto",
    "port": 1883,
    "username": "addons",
    "password": "0071",
    "ssl": False,
}


@pytest.fixture
async def supervisor() -> AsyncIterator[str]:
    """A Supervisor that gives the broker's account to who has the token."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer token":
            return web.json_response({"result": "error", "message": "Unauthorized"}, status=401)
        return web.json_response({"result": "ok", "data": SERVICE})

    app = web.Application()
    app.router.add_get("/services/mqtt", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_addon_asks_the_supervisor_for_the_broker(supervisor: str, program: ModuleType) -> None:
    """With its token it gets the broker's account; without, or without a broker, it has none."""
    assert await asyncio.to_thread(program.mqtt_service, supervisor, "token") == SERVICE
    assert await asyncio.to_thread(program.mqtt_service, supervisor, "other") is None
    assert await asyncio.to_thread(program.mqtt_service, "http://127.0.0.1:9", "token") is None


def test_broker_of_the_options_goes_before_the_addons(program: ModuleType) -> None:
    """A broker that the user names is taken as it is, and its password needs TLS; the add-on's is inside this host."""
    variables = program.environment({"mqtt_host": "broker.lan", "mqtt_password": "secret", "mqtt_tls": True}, SERVICE)
    assert variables == {"MQTT_HOST": "broker.lan", "MQTT_PASSWORD": "secret", "MQTT_TLS": "true"}

    variables = program.environment({"client_id": "id"}, SERVICE)
    assert variables["MQTT_PASSWORD"] == "0071"
    assert variables["MQTT_ALLOW_PLAIN_PASSWORD"] == "true"
    assert "MQTT_HOST" not in program.environment({}, None)


async def test_addon_reaches_api_and_broker(world: harness.World, program: ModuleType) -> None:
    """With the variables of its options, the add-on's own bridge.yaml passes `oneweb-bridge check`."""
    options = {"client_id": "demo", "client_secret": "demo-secret", "base_url": world.api.url, "log_level": "debug"}
    service = {"host": "127.0.0.1", "port": world.port, "ssl": False}
    variables = program.environment(options, service)

    code, out, err = await harness.command("check", "-c", str(ADDON / "bridge.yaml"), cwd=world.directory, **variables)
    assert code == 0, out + err

    plain = {"MQTT_HOST": "127.0.0.1", "ONEWEB_PROFILE": "training", "LOG_LEVEL": "debug"}
    code, out, err = await harness.command("config", "-c", str(ADDON / "bridge.yaml"), cwd=world.directory, **plain)
    document = yaml.safe_load(out)
    assert (document["log"]["level"], document["api"]["base_url"]) == ("debug", "https://api.oneweb.training"), err


# ── the rest ───────────────────────────────────────────────────────────────────────────────────


def test_variables_of_the_program_are_documented() -> None:
    """Each environment variable that the source or the add-on's bridge.yaml reads is in docs/configuration.md."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "oneweb_bridge").rglob("*.py"))
    names = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', source)) | set(re.findall(r"\$\{([A-Z_]+):-\}", source))
    names |= set(re.findall(r"\$\{(\w+)", (ADDON / "bridge.yaml").read_text()))
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

    assert {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "ONEWEB_CLIENT_ID"} <= names
    for name in names - {"PATH"}:
        assert f"`{name}`" in page, name


def test_package_brings_the_brokers_configuration() -> None:
    """What is installed without a checkout has the demo's mosquitto configuration where the demo looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    assert included == {"mosquitto/demo.conf": "oneweb_bridge/demo/demo.conf"}
    assert "mosquitto/demo.conf" in copied(DEPLOY / "Dockerfile")
    assert (ROOT / "mosquitto/demo.conf").exists()


def test_scripts_are_shell(tmp_path: Path) -> None:
    """Every script parses as POSIX shell."""
    scripts = sorted(DEPLOY.rglob("*.sh"))

    assert len(scripts) == 2
    for script in scripts:
        run("sh", "-n", str(script))


def test_secrets_are_not_for_everybody() -> None:
    """Nothing in deploy/ is a secret, or writable by others."""
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "secrets" not in path.parts:
            assert not path.stat().st_mode & stat.S_IWOTH, path
            assert "BEGIN PRIVATE KEY" not in path.read_text(encoding="utf-8", errors="replace"), path


def test_healthcheck_of_the_image_reads_the_configuration_that_it_runs_with() -> None:
    """The image asks where the file that its command names says that the bridge listens."""
    text = (DEPLOY / "Dockerfile").read_text()
    match = re.search(r'"-m", "oneweb_bridge.web.healthcheck", "([^"]+)"', text)
    assert match
    assert f'CMD ["run", "-c", "{match[1]}"]' in text


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
async def test_healthcheck_asks_where_the_configuration_listens(
    status: int | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another port, for all addresses: 0 while /healthz says 200, else 1 with a sentence."""
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 60.0)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(status=status or 200)

    site, port = web.Application(), mosquitto.free_port()
    site.add_routes([web.get("/healthz", healthz)])
    server = TestServer(site, port=port)
    config = tmp_path / "bridge.yaml"
    config.write_text(f"http: {{listen: '0.0.0.0:{port}'}}\n")
    if status:
        await server.start_server()
    try:
        assert await asyncio.to_thread(healthcheck.main, [str(config)]) == code
    finally:
        await server.close()


def test_healthcheck_of_a_wrong_configuration_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read makes it say so, without a traceback."""
    assert healthcheck.main([str(tmp_path / "missing.yaml")]) == 1
    assert "missing.yaml" in capsys.readouterr().err


# ── lock files ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_file_has_the_hashes_of_every_package(name: str) -> None:
    """Each package is pinned with the hashes of its files, several where there are wheels, and with no address."""
    text = (ROOT / name).read_text(encoding="utf-8")
    packages = re.findall(
        r"^([a-zA-Z0-9._-]+)==[^ ]+(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)",
        text,
        re.MULTILINE,
    )
    pinned = re.findall(r"^[a-zA-Z0-9._-]+==", text, re.MULTILINE)
    assert len(packages) == len(pinned) > 10
    assert "://" not in text
    # A wheel for each Python and machine: a package with extensions has many files.
    count = {package.lower(): hashes.count("--hash") for package, hashes in packages}
    assert all(count[package] > 20 for package in ("aiohttp", "msgspec", "multidict", "yarl"))


def test_lock_file_is_installed_with_its_hashes() -> None:
    """Wherever a lock file is installed pip is told that every package must have a hash."""
    for path in (DEPLOY / "setup.sh", DEPLOY / "README.md", *DOCKERFILES):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"install .*-r ", line):
                assert "--require-hashes" in line, (path, line)


def test_runtime_lock_is_a_part_of_that_of_the_tests() -> None:
    """What is tested is what runs: the same versions and the same hashes."""
    pins, tested = (
        dict(re.findall(r"^([a-zA-Z0-9._-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert pins.items() <= tested.items()


def test_telegraf_buffers_what_its_inputs_may_leave_unwritten() -> None:
    """The unacknowledged messages of all inputs fit into the buffer, so that a slow database makes it drop none."""
    config = tomllib.loads((DEPLOY / "telegraf" / "telegraf.conf").read_text(encoding="utf-8"))
    inputs = config["inputs"]["mqtt_consumer"]
    unwritten = sum(plugin.get("max_undelivered_messages", 1000) for plugin in inputs)
    assert unwritten <= config["agent"]["metric_buffer_limit"]
    assert all(plugin["persistent_session"] and plugin["qos"] == 1 for plugin in inputs)
