"""The configuration: what a file may say, what comes of it, and the sentence that a mistake gets."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import hypothesis
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from oneweb_bridge.config.calls import mapping_fingerprint
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks, secrets_of_state
from oneweb_bridge.config.read import PROFILES, load, parse, require_credentials
from oneweb_bridge.config.schema import AUTO, Config, MapForm, Secret, key_types, without_none
from oneweb_bridge.config.units import interval_text, parse_duration, parse_length, parse_share, parse_size
from oneweb_bridge.config.write import dump_yaml, effective, yaml_text
from oneweb_bridge.decode.catalogue import CALLS, Field

ROOT = Path(__file__).parent.parent
SHIPPED = (ROOT / "bridge.yaml").read_text(encoding="utf-8")
DEFAULTS = parse("", {})


def refused(text: str, environ: dict[str, str] | None = None, **where: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ or {}, **where)
    return str(caught.value)


def field(config: Config, call: str, name: str) -> Field:
    (field,) = (field for field in config.polling[call].fields if field.name == name)
    return field


def key_paths(struct: type, above: str = "") -> Iterator[str]:
    """Every key that the file may have, with `<call>` for the name of a call."""
    for name, annotated in key_types(struct).items():
        kind, may_be_null = without_none(annotated)
        key = f"{above}{name}.<call>" if name == "polling" else f"{above}{name}"
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        yield key
        # What is null by default is a block like another one.
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not (may_be_null and name == "mqtt"):
            yield from key_paths(kind, f"{key}.")


KEYS = [
    *key_paths(Config),
    *(f"polling.<call>.map.<field>.{key}" for key in key_types(MapForm)),
]


# --- the shipped file and the documentation -------------------------------------------------------


def test_shipped_file_is_the_defaults() -> None:
    """bridge.yaml says exactly what holds without it."""
    assert parse(SHIPPED, {}) == DEFAULTS


def test_shipped_file_is_complete() -> None:
    """Every key of every section stands in bridge.yaml."""
    tree = yaml.safe_load(SHIPPED)
    polling = tree["polling"]
    assert list(polling) == list(CALLS)
    for key in key_paths(Config):
        places = [tree] if not key.startswith("polling.") else list(polling.values())
        assert any(has(start, key.removeprefix("polling.<call>").removeprefix(".")) for start in places), key


def has(tree: Any, key: str) -> bool:
    for part in key.split(".") if key else ():
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def test_shipped_file_says_every_field() -> None:
    """The map of each call in bridge.yaml names all fields of the catalogue, in its order."""
    for id, keys in yaml.safe_load(SHIPPED)["polling"].items():
        assert list(keys["map"]) == [field.name for field in CALLS[id].fields]


@pytest.mark.parametrize("key", KEYS)
def test_documentation_has_the_key(key: str) -> None:
    """docs/configuration.md mentions every key by its full path."""
    assert f"`{key}`" in (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def test_documentation_examples_are_valid() -> None:
    """Every YAML example of the documentation is accepted."""
    examples = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert len(examples) >= 8
    for example in examples:
        parse(
            example.split("```")[0],
            dict.fromkeys(("MQTT_PASSWORD", "ONEWEB_CLIENT_ID", "ONEWEB_CLIENT_SECRET"), "x"),
        )


# --- defaults, load, profiles ---------------------------------------------------------------------


def test_defaults_are_the_contract() -> None:
    """Without a file, the documented defaults hold."""
    config = DEFAULTS
    assert (config.instance, config.profile, config.location_threshold) == ("main", "production", 100.0)
    assert config.api.base_url == "https://api.oneweb.net"
    assert (config.api.hello.path, config.api.hello.interval) == ("/hello/v1/oneweb/world", 900.0)
    assert (config.api.rate_limit.min_interval, config.api.rate_limit.max_requests_per_hour) == (0.25, None)
    assert (config.api.timeout.connect, config.api.timeout.read, config.api.timeout.poll) == (
        10.0,
        60.0,
        600.0,
    )
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.protocol, config.mqtt.window) == (
        "localhost",
        1883,
        "5",
        AUTO,
    )
    assert (config.api.max_body, config.mqtt.max_payload, config.state.history.max_size) == (
        64 * 10**6,
        64_000,
        4 * 10**9,
    )
    assert (config.state.history.events, config.state.history.samples, config.state.max_backlog) == (
        2592e3,
        6048e2,
        6048e2,
    )
    assert (config.removal.after_missing, config.removal.after_time, config.removal.hold_for) == (
        3,
        900.0,
        86400.0,
    )
    assert (config.removal.hold_above.count, config.removal.hold_above.share) == (5, 0.1)
    assert config.http.address() == ("127.0.0.1", 8480)


def test_calls_are_all_there_by_default() -> None:
    """`polling` has all twelve calls of the catalogue; link metrics alone are disabled."""
    assert list(DEFAULTS.polling) == list(CALLS)
    assert [id for id, call in DEFAULTS.polling.items() if not call.enabled] == ["ut_link_metrics"]


def test_calls_keep_what_configuration_does_not_know() -> None:
    """But for the roles in paths, a call without an overlay is its row of the catalogue."""
    for id, call in DEFAULTS.polling.items():
        assert replace(call, fields=()) == replace(CALLS[id], fields=())
        assert [replace(f, paths=()) for f in call.fields] == [replace(f, paths=()) for f in CALLS[id].fields]


def test_load_reads_the_file_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, ./bridge.yaml is read, and without that the defaults hold."""
    monkeypatch.chdir(tmp_path)
    assert load(None, {}) == DEFAULTS
    (tmp_path / "bridge.yaml").write_text("instance: here")
    assert load(None, {}).instance == "here"


def test_load_names_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are one sentence with the file's name."""
    with pytest.raises(ConfigError, match=r"nix\.yaml: cannot be read: No such file"):
        load(tmp_path / "nix.yaml", {})
    (tmp_path / "odd.yaml").write_bytes(b"instance: \xff")
    with pytest.raises(ConfigError, match=r"odd\.yaml: expected a YAML file in UTF-8"):
        load(tmp_path / "odd.yaml", {})


def test_credentials_come_from_the_environment_unasked() -> None:
    """Where the file does not mention the credentials, the two variables of the shipped file are read."""
    environ = {"ONEWEB_CLIENT_ID": "me", "ONEWEB_CLIENT_SECRET": "s3"}
    for text in ("", "api:", "api: {allow_http: true}", SHIPPED):
        api = parse(text, environ).api
        assert (str(api.client_id), str(api.client_secret)) == ("me", "s3")
    assert parse("api: {client_id: ''}", environ).api.client_id == ""


def test_profile_sets_the_address() -> None:
    """`profile: training` changes base_url, also in the shipped file, but not one that the user gave."""
    training = PROFILES["training"]["api"]["base_url"]
    assert parse("profile: training", {}).api.base_url == training == "https://api.oneweb.training"
    assert parse(SHIPPED.replace("profile: production", "profile: training"), {}).api.base_url == training
    assert parse("{profile: training, api: {base_url: '${URL:-}'}}", {}).api.base_url == training
    assert parse("{profile: training, api: {base_url: 'https://own'}}", {}).api.base_url == "https://own"
    assert refused("profile: traning") == "bridge.yaml: profile: expected one of production, training, got 'traning'"


# --- the environment and files --------------------------------------------------------------------


def test_variable_is_read() -> None:
    """${NAME} and ${NAME:-default} stand for the environment's value, anywhere in a text."""
    environ = {"HOST": "broker", "EMPTY": ""}
    text = "mqtt: {host: '${HOST}.lan', base_topic: '${NIX:-a}/${EMPTY:-b}'}"
    assert (parse(text, environ).mqtt.host, parse(text, environ).mqtt.base_topic) == ("broker.lan", "a/b")


def test_variable_fits_numbers_and_flags() -> None:
    """A scalar that is one variable may be a number, a flag, a duration or null."""
    text = (
        "mqtt: {port: '${PORT:-1884}', tls: {enabled: '${TLS}'}, username: '${NIX:-}'}\n"
        "api: {rate_limit: {max_requests_per_hour: '${LIMIT:-}', min_interval: '${PAUSE}'}}"
    )
    config = parse(text, {"TLS": "true", "PAUSE": "2s"})
    assert (config.mqtt.port, config.mqtt.tls.enabled, config.mqtt.username) == (1884, True, None)
    assert (config.api.rate_limit.max_requests_per_hour, config.api.rate_limit.min_interval) == (None, 2.0)


@pytest.mark.parametrize("secret", ["a: b", "{x", "# no", "0123", "1.50", "true", "*x", '"', "${HOME}", " s "])
def test_variable_is_never_read_as_yaml(secret: str) -> None:
    """A secret with YAML characters, zeros in front or a dollar arrives as it is."""
    assert str(parse("mqtt: {username: u, password: '${P}'}", {"P": secret}).mqtt.password) == secret


def test_variable_that_is_not_set_names_key_and_variable() -> None:
    """An unset variable without default is refused with key and name."""
    sentence = refused("mqtt: {password: '${MQTT_PASSWORD}'}")
    assert (
        sentence
        == "bridge.yaml: mqtt.password: the environment variable MQTT_PASSWORD is not set, and there is no default"
    )


def test_variable_can_be_escaped() -> None:
    """$${ is a plain ${, and what only looks like a variable is refused."""
    assert str(parse("api: {client_id: 'a$${B}c'}", {}).api.client_id) == "a${B}c"
    assert "expected ${NAME}" in refused("api: {client_id: 'a${B'}")
    assert str(parse("api: {client_id: 'a$b'}", {}).api.client_id) == "a$b"


def test_variable_of_a_wrong_form_is_not_shown() -> None:
    """A message does not show what came from the environment, which may be a secret in a wrong place."""
    sentence = refused("mqtt: {port: '${P}'}", {"P": "hunter2"})
    assert "hunter2" not in sentence
    assert "mqtt.port: expected a port from 1 to 65535, got something else" in sentence


SECRETS = ("api.client_id", "api.client_secret", "api.proxy", "mqtt.username", "mqtt.password")


@pytest.mark.parametrize("key", SECRETS)
def test_secret_may_stand_in_a_file(key: str, tmp_path: Path) -> None:
    """x_file gives x, relative to the configuration's directory, without the newline at its end."""
    section, name = key.split(".")
    (tmp_path / "word").write_text("pass: word \n")
    tree = {section: {f"{name}_file": "word"}}
    config = parse(yaml.safe_dump(tree), {}, directory=tmp_path)
    assert str(getattr(getattr(config, section), name)) == "pass: word "


def test_secret_in_file_and_key_is_refused(tmp_path: Path) -> None:
    """Both x and x_file is an error; an empty x beside x_file is not."""
    (tmp_path / "id").write_text("me")
    sentence = refused("api: {client_id: you, client_id_file: id}", directory=tmp_path)
    assert sentence == "bridge.yaml: api.client_id_file: expected either client_id or client_id_file, got both"
    text = "api: {client_id: '${ONEWEB_CLIENT_ID:-}', client_id_file: id}"
    assert parse(text, {}, directory=tmp_path).api.client_id == "me"


def test_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing or binary file is named with its key, never with its content."""
    sentence = refused("mqtt: {password_file: nix}", directory=tmp_path)
    assert (
        sentence
        == f"bridge.yaml: mqtt.password_file: the file {tmp_path}/nix cannot be read: No such file or directory"
    )
    (tmp_path / "odd").write_bytes(b"hunter2\xff")
    sentence = refused("mqtt: {password_file: odd}", directory=tmp_path)
    assert "not a text in UTF-8" in sentence
    assert "hunter2" not in sentence


def test_secret_may_be_a_systemd_credential(tmp_path: Path) -> None:
    """A credential of systemd is found by its full path and by its name alone."""
    secrets, etc = tmp_path / "credentials", tmp_path / "etc"
    secrets.mkdir()
    etc.mkdir()
    (secrets / "secret").write_text("s3\n")
    environ = {"CREDENTIALS_DIRECTORY": str(secrets)}
    for path in ("${CREDENTIALS_DIRECTORY}/secret", "secret"):
        (etc / "bridge.yaml").write_text(f"api: {{client_secret_file: '{path}'}}")
        assert load(etc / "bridge.yaml", environ).api.client_secret == "s3"


def test_secret_is_never_shown() -> None:
    """No secret stands in repr or in the effective configuration; str gives it."""
    text = "api: {client_id: hunter1, client_secret: hunter2, proxy: 'http://u:hunter3@p'}\n"
    text += "mqtt: {username: hunter4, password: hunter5}"
    config = parse(text, {})
    assert "hunter" not in repr(config) + dump_yaml(config) + str(effective(config))
    assert str(config.mqtt.password) == "hunter5"
    assert effective(config)["mqtt"]["password"] == "***"
    assert effective(DEFAULTS)["api"]["client_id"] == ""


@pytest.mark.parametrize("secret", ["*hunter2", "!hunter2", "!x!hunter2", "[hunter2]", "{hunter2: 1}", "&a"])
def test_secret_is_not_in_an_error(secret: str) -> None:
    """A password that YAML or the kinds refuse is not repeated in the message."""
    try:
        parse(f"mqtt:\n  username: u\n  password: {secret}", {})
    except ConfigError as error:
        assert "hunter2" not in str(error)  # noqa: PT017 - not every one of them is refused


def test_credentials_that_are_missing_are_asked_for() -> None:
    """An empty id or secret loads, and is refused with a helpful sentence when it is needed."""
    with pytest.raises(ConfigError, match=r"api\.client_id is empty: set ONEWEB_CLIENT_ID"):
        require_credentials(DEFAULTS)
    with pytest.raises(ConfigError, match=r"api\.client_secret is empty: set ONEWEB_CLIENT_SECRET"):
        require_credentials(parse("api: {client_id: a}", {}))
    require_credentials(parse("api: {client_id: a, client_secret: b}", {}))


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("6h", 21600),
        ("1d", 86400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (7, 7),
        ("0.5", 0.5),
        ("5min", 300),
        ("PT5M", 300),
        ("P1DT6H30M1.5S", 109801.5),
        ("P2D", 172800),
    ],
)
def test_duration_is_read(value: object, seconds: float) -> None:
    """Durations come with a unit or as a number of seconds."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "",
        "-5s",
        -1,
        True,
        None,
        "5 weeks",
        "5M",
        "P",
        "PT",
        "P5M",
        "P1DT",
        "PT5",
        float("nan"),
        float("inf"),
        [1],
    ],
)
def test_duration_of_another_form_is_refused(value: object) -> None:
    """Anything else is a ValueError with what was expected."""
    with pytest.raises(ValueError, match="expected a duration like 30s or 5m"):
        parse_duration(value)


@hypothesis.settings(deadline=None)
@given(st.integers(0, 10**12))
def test_duration_text_is_read_back(millis: int) -> None:
    """interval_text loses nothing."""
    assert parse_duration(interval_text(millis / 1000)) == millis / 1000


def test_duration_text_is_short() -> None:
    """Durations are said in the largest unit that fits."""
    texts = [interval_text(seconds) for seconds in (300, 21600, 86400, 90, 0.25, 0, 0.0001)]
    assert texts == ["5m", "6h", "1d", "90s", "250ms", "0s", "0.0001s"]


def test_sizes_lengths_and_shares_are_read() -> None:
    """Sizes are decimal unless binary is said; lengths are metres, shares percent or a fraction."""
    text = "{mqtt: {max_payload: %s}, location_threshold: %s, removal: {hold_above: {share: %s}}}"
    for value, expected in (
        (("64kB", "1km", "10%"), (64_000, 1000.0, 0.1)),
        (("64KiB", "50 m", "0.25"), (65_536, 50.0, 0.25)),
        (("1000", "0", "0%"), (1000, 0.0, 0.0)),
    ):
        config = parse(text % value, {})
        assert (
            config.mqtt.max_payload,
            config.location_threshold,
            config.removal.hold_above.share,
        ) == expected


EXTREMES = (
    *("9" * 400, "9" * 5000, "1e300", "-1", ".nan", ".inf", "1e300s", f"{'9' * 60}s", f"{'9' * 400}s", f"{'9' * 60}GB"),
    *(
        '"\\uDCFF"',
        '"\\0"',
        "[]",
        "[[[]]]",
        "{}",
        "true",
        "2025-13-45",
        "!!int x",
        f"!!int {'9' * 5000}",
        "!!binary aGk=",
    ),
)


def leaves(tree: object, *above: str) -> Iterator[tuple[str, ...]]:
    """Where a value stands in a configuration."""
    if isinstance(tree, dict) and tree:
        for name, below in tree.items():
            yield from leaves(below, *above, name)
    else:
        yield above


@pytest.mark.parametrize("extreme", EXTREMES, ids=lambda text: text[:12])
def test_no_value_of_any_key_is_a_traceback(extreme: str) -> None:
    """Whatever stands at a key is refused with a sentence, or can be shown again as the effective configuration."""
    for keys in leaves({**effective(DEFAULTS), "polling": {"sites": effective(DEFAULTS)["polling"]["ut_traffic"]}}):
        text = extreme
        for key in reversed(keys):
            text = f"{{{json.dumps(key)}: {text}}}"
        with contextlib.suppress(ConfigError):
            section = effective(parse(text, {}))[keys[0]]
            assert yaml_text({keys[0]: {"sites": section["sites"]} if keys[0] == "polling" else section})


def test_value_of_the_environment_that_is_no_text_is_refused() -> None:
    """Bytes of the environment that are not UTF-8 are refused with the key."""
    with pytest.raises(ConfigError, match=r"mqtt\.username"):
        parse("mqtt: {username: '${NAME}'}", {"NAME": "\udcff"})


@pytest.mark.parametrize(
    ("parse_quantity", "unit"), [(parse_duration, "d"), (parse_size, "TiB"), (parse_length, "km"), (parse_share, "%")]
)
@pytest.mark.parametrize("number", [10**400, 1e300, "9" * 60, "9" * 400, "9" * 5000, float("inf"), float("nan"), -1])
def test_quantity_without_bounds_is_refused(
    parse_quantity: Callable[[object], float], unit: str, number: float | str
) -> None:
    """No number and no text gives a quantity that is infinite or larger than the bridge can count with."""
    for quantity in (number, f"{number}{unit}"[:8000] if isinstance(number, str) else number):
        with pytest.raises(ValueError, match="expected a") as refused:
            parse_quantity(quantity)
        assert len(str(refused.value)) < 150


@pytest.mark.parametrize(
    "host", ["broker", "broker.example.org", "10.0.0.1", "::1", "[::1]", "fe80::1234", "2001:db8::1883"]
)
def test_host_without_a_port_is_taken(host: str) -> None:
    """Names and addresses, IPv6 ones with and without brackets."""
    assert parse(f"mqtt: {{host: '{host}'}}", {}).mqtt.host == host


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = {
    "mqtt: {prot: 1}": "mqtt.prot: unknown key; did you mean 'port'?",
    "zzz: 1": "zzz: unknown key; expected one of instance, profile, api",
    "polling: {user_terminal: {}}": "polling.user_terminal: unknown key; did you mean 'user_terminals'?",
    "polling: {sites: {intervall: 1h}}": "polling.sites.intervall: unknown key; did you mean 'interval'?",
    "polling: {sites: {page: {limt: 1}}}": "polling.sites.page.limt: unknown key; did you mean 'limit'?",
    "polling: {sites: {map: {name: {pth: a}}}}": "polling.sites.map.name.pth: unknown key; did you mean",
    "api: {client_secret_fle: a}": "api.client_secret_fle: unknown key; did you mean 'client_secret_file'?",
    "api: {timeout: {read: soon}}": "api.timeout.read: expected a duration like 30s or 5m, at most 100 years, got",
    "api: {timeout: {read: 0}}": "api.timeout.read: expected a duration like 30s or 5m, at most 100 years, got '0'",
    "mqtt: {port: 0}": "mqtt.port: expected a port from 1 to 65535, got '0'",
    "mqtt: {port: 70000}": "mqtt.port: expected a port from 1 to 65535, got '70000'",
    "mqtt: {window: 0}": "mqtt.window: expected auto or a whole number from 1 to 65535, got '0'",
    "mqtt: {window: 1.5}": "mqtt.window: expected auto or a whole number from 1 to 65535, got '1.5'",
    "mqtt: {protocol: 4}": 'mqtt.protocol: expected "5" or "3.1.1", got \'4\'',
    "mqtt: {tls: {enabled: maybe}}": "mqtt.tls.enabled: expected true or false, got 'maybe'",
    "mqtt: {host: 'broker:1883'}": "mqtt.host: expected a host name or an address without a port, got 'broker:1883'",
    "mqtt: {host: '[::1]:1883'}": "mqtt.host: expected a host name or an address without a port, got '[::1]:1883'",
    "mqtt: {host: 'mqtt:broker'}": "mqtt.host: expected a host name or an address, got 'mqtt:broker'",
    "mqtt: {path: ws}": "mqtt.path: expected a path that begins with '/'",
    'mqtt: {password: "a\\n"}': "mqtt.password: expected a text without line ends and control characters",
    'mqtt: {password: "\\uFEFFa"}': "mqtt.password: expected a text without line ends and control characters",
    'mqtt: {username: "a\\r"}': "mqtt.username: expected a text without line ends and control characters",
    f"mqtt: {{base_topic: {'x' * 1025}}}": "mqtt.base_topic: expected a topic of at most 1024 bytes, got 1025",
    "mqtt: 5": "mqtt: expected keys with values, got '5'",
    "filter: {imeis: 123}": "filter.imeis: expected a list of texts like [a, b], got '123'",
    "filter: {imeis: [null]}": "filter.imeis: expected a list of texts like [a, b], got a list",
    "instance: a b": "instance: expected 1 to 64 letters, digits, '_' or '-', got 'a b'",
    'instance: "a\\n"': "instance: expected 1 to 64 letters",
    "removal: {hold_above: {share: 11}}": "removal.hold_above.share: expected a share like 10% or 0.1,",
    "forecast: {overage_price: -1}": "forecast.overage_price: expected an amount like 90 or 89.5, at most 1000000000,",
    "forecast: {overage_price: .nan}": "forecast.overage_price: expected an amount like 90 or 89.5, at most",
    "forecast: {overage_price: 90 EUR}": "forecast.overage_price: expected an amount like 90 or 89.5, at most",
    "forecast: {overage_currency: a euro}": "forecast.overage_currency: expected a currency like EUR, without spaces",
    "location_threshold: far": "location_threshold: expected a length like 100m or 1km, got 'far'",
    "polling: {sites: {interval: 9s}}": "polling.sites.interval: expected a duration from 10s to 7d, got",
    "polling: {sites: {interval: 8d}}": "polling.sites.interval: expected a duration from 10s to 7d, got",
    "polling: {sites: {path: x}}": "polling.sites.path: expected a path that begins with '/'",
    "polling: {sites: {path: '/x?a=1'}}": "polling.sites.path: expected a path that begins with '/'",
    "polling: {sites: {key: []}}": "polling.sites.key: expected a path or a list of paths, got a list",
    "polling: {sites: {records: 'a[b'}}": "polling.sites.records: expected a path, but 'a[b' is not a path",
    "polling: {sites: {map: {name: 'a[b'}}}": "polling.sites.map.name: expected a path, but 'a[b' is not",
    "polling: {sites: {map: {name: {unit: GB, type: text}}}}": "polling.sites.map.name.type: expected",
    "polling: {sites: {map: {newOne: a}}}": "polling.sites.map.newOne: expected a field name of",
    "polling: {sites: {map: {site_id: a}}}": "polling.sites.map.site_id: this name is the bridge's",
    "polling: {sites: {map: {x: {type: text}}}}": "polling.sites.map.x.path: expected a path or a list",
    "polling: {sites: {map: {x: 'a[role={boss}].id'}}}": "polling.sites.map.x: unknown role 'boss'",
    "polling: {sites: {map: {nam: null}}}": "polling.sites.map.nam: unknown key; did you mean 'name'?",
    "polling: {sites: {map: [a]}}": "polling.sites.map: expected keys with values, got a list",
    "polling: {sites: {window: soon}}": "polling.sites.window: expected none or keys with values, got",
    "polling: {sites: {page: {limit: 0}}}": "polling.sites.page.limit: expected a whole number from 1 to 1000000000,",
    "polling: {ut_traffic: {window: {length: 59m}}}": "polling.ut_traffic.window.length: expected at",
    "polling: {ut_traffic: {for_each: user_terminals}}": "polling.ut_traffic.path: expected {ut_id}",
    "polling: {ut_traffic: {path: '/x/{ut_id}'}}": "polling.ut_traffic.for_each: expected",
    "polling: [a]": "polling: expected calls with their keys, got a list",
    "mapping: {timezone: Mars}": "mapping.timezone: expected a time zone like UTC or Europe/Berlin, got",
    "mapping: {roles: {end_customer: 'a|b'}}": "mapping.roles.end_customer: expected names without",
    "mapping: {roles: {end_customer: []}}": "mapping.roles.end_customer: expected a role's name",
    "http: {listen: '8480'}": "http.listen: expected an address and a port like 127.0.0.1:8480, got '8480'",
    "http: {listen: 'a:99999'}": "http.listen: expected a port up to 65535",
    "mqtt: {base_topic: a/+}": "mqtt.base_topic: expected a topic without '+', '#'",
    "mqtt: {base_topic: ''}": "mqtt.base_topic: expected a topic",
    "mqtt: {base_topic: /a}": "mqtt.base_topic: expected a topic",
    "mqtt: {base_topic: a/}": "mqtt.base_topic: expected a topic",
    "mqtt: {base_topic: $SYS}": "mqtt.base_topic: expected a topic",
    'mqtt: {base_topic: "a\\0"}': "mqtt.base_topic: expected a topic",
    "homeassistant: {discovery_prefix: oneweb/ha}": "homeassistant.discovery_prefix: expected a topic",
    "api: {base_url: api.oneweb.net}": "api.base_url: expected an address like https://api.oneweb.net",
    "api: {base_url: 'https://'}": "api.base_url: expected an address like https://api.oneweb.net",
    "api: {base_url: 'ftp://x'}": "api.base_url: expected an address like https://api.oneweb.net",
    "api: {base_url: 'https://x:99999'}": "api.base_url: expected an address like https://api.oneweb.net",
    "api: {base_url: 'https://u:p@x'}": "api.base_url: expected an address without user, password",
    "api: {base_url: 'http://x'}": "api.base_url: would send the credentials to x unencrypted",
    "api: {auth: {token_url: 'http://x'}}": "api.auth.token_url: would send the credentials to x",
    "api: {auth: {style: oauth2_client_credentials}}": "api.auth.token_url: expected an address,",
    "api: {auth: {client_id_header: 'a b'}}": "api.auth.client_id_header: expected the name of an HTTP",
    'api: {client_id: "a\\nb"}': "api.client_id: expected a text without line ends",
    "mqtt: {host: b, username: u, password: p}": "mqtt.password: would go to b unencrypted",
    "mqtt: {password: p, protocol: 3.1.1}": "mqtt.username: expected a name",
    "mqtt: {tls: {key_file: k}}": "mqtt.tls.cert_file: expected a file name",
    "a: [1": "line 1: the brace or bracket that begins here is not closed",
    "mqtt: {port: ${PORT}}": "line 1: inside braces and brackets, '${NAME}' must be in quotes",
    "instance: a\ninstance: b": "line 2: 'instance' stands twice",
    "? [a]\n: 1": "line 1: a key must be a text",
    "instance: \x07": "expected a YAML file, and it has characters that YAML forbids",
    "a: &a [*a]": "is nested too deeply",
    "- a": "expected keys with values, like 'instance: main', got a list",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistake_is_one_sentence_with_file_key_and_expectation(text: str) -> None:
    """Whatever is wrong is told in one line that begins with file and key."""
    sentence = refused(text, name="etc/b.yaml")
    assert sentence.startswith(f"etc/b.yaml: {MISTAKES[text]}")
    assert "\n" not in sentence


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=4))
def test_mistake_of_any_kind_is_a_config_error(value: Any) -> None:
    """Whatever a key's value is, it is taken or refused with a ConfigError."""
    for key in ("instance", "api", "polling", "location_threshold"):
        answered(yaml.safe_dump({key: value}))
    for key in ("map", "query", "page", "window", "key"):
        answered(yaml.safe_dump({"polling": {"sites": {key: value}}}))


def answered(text: str) -> Config | ConfigError:
    try:
        return parse(text, {})
    except ConfigError as error:
        return error


def test_plain_scalars_keep_their_text() -> None:
    """An IMEI, a word or a version without quotes is the text that stands there, zeros and all."""
    text = "{filter: {imeis: [012345670123456], sites: [1.50, 2025-01-01]}, mapping: {online_states: [on, yes]}}"
    config = parse(text, {})
    assert config.filter.imeis == ("012345670123456",)
    assert config.filter.sites == ("1.50", "2025-01-01")
    assert config.mapping.online_states == ("on", "yes")


def test_empty_keys_have_their_default() -> None:
    """A section or key without a value, as when all below it is commented out, has its default."""
    text = "{api: null, mqtt: {port: null, tls: }, polling: {sites: null, products: {interval: }}, filter: }"
    assert parse(text, {}) == DEFAULTS


@pytest.mark.parametrize("text", ["5", "5.0", '"5"'])
def test_protocol_may_be_a_number(text: str) -> None:
    """protocol: 5 is what "5" is."""
    assert parse(f"mqtt: {{protocol: {text}}}", {}).mqtt.protocol == "5"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.3.2.1", "[::1]", "a.localhost"])
def test_loopback_needs_no_encryption(host: str) -> None:
    """Credentials and passwords may go to this host in plain."""
    assert parse(f"api: {{base_url: 'http://{host}:8080/'}}", {}).api.base_url == f"http://{host}:8080"
    parse(f"mqtt: {{host: '{host}', username: u, password: p}}", {})


ELSEWHERE = [
    "192.168.1.10",
    "0.0.0.0",
    "[::]",
    "[fe80::1]",
    "128.0.0.1",
    "broker.lan",
    "localhost.example.org",
    "127.0.0.1.example.org",
    "127.1",
    "2130706433",
    "ip6-loopback",
    socket.gethostname(),
]
"""Other hosts, and names for this one that somebody else may answer for: a name is never looked up."""


@pytest.mark.parametrize("host", ELSEWHERE)
def test_plain_goes_to_loopback_alone(host: str) -> None:
    """A password or credentials without TLS are refused for all that is not loopback by its very text."""
    assert refused(f"mqtt: {{host: '{host}', username: u, password: p}}").startswith(
        "bridge.yaml: mqtt.password: would go"
    )
    assert "would send the credentials" in refused(f"api: {{base_url: 'http://{host}'}}")
    tokens = f"style: oauth2_client_credentials, token_url: 'http://{host}/t'"
    assert "api.auth.token_url: would send" in refused(f"api: {{auth: {{{tokens}}}}}")


def test_plain_does_not_go_through_a_proxy_elsewhere() -> None:
    """Plain HTTP to this host by way of a proxy elsewhere would show the credentials to it."""
    api = "base_url: 'http://localhost:8080', proxy: 'http://proxy.example.net:3128'"
    assert "api.base_url: would send the credentials to api.proxy unencrypted" in refused(f"api: {{{api}}}")
    parse(f"api: {{{api}, allow_http: true}}", {})
    parse("api: {base_url: 'https://api.example.net', proxy: 'http://proxy.example.net:3128'}", {})


def test_plain_is_allowed_when_said() -> None:
    """The two switches allow what is refused otherwise."""
    parse("api: {base_url: 'http://x', allow_http: true}", {})
    parse("mqtt: {host: b, username: u, password: p, allow_plain_password: true}", {})
    parse("mqtt: {host: b, username: u, password: p, tls: {enabled: true}}", {})


def test_certificates_are_relative_to_the_file(tmp_path: Path) -> None:
    """Names of certificates mean files beside the configuration; full paths stay."""
    mqtt = parse("mqtt: {tls: {ca_file: ca.pem, cert_file: /c.pem}}", {}, directory=tmp_path).mqtt
    assert (mqtt.tls.ca_file, mqtt.tls.cert_file) == (str(tmp_path / "ca.pem"), "/c.pem")


# --- calls ----------------------------------------------------------------------------------------


def test_call_is_overlaid_key_by_key() -> None:
    """What an overlay does not mention stays as in the catalogue, also inside page and window."""
    text = """
    polling:
      ut_traffic:
        enabled: no
        interval: 90
        page: {style: none}
        window: {length: 2h}
        indicators: null
        timestamp: [time, at]
    """
    call = parse(text, {}).polling["ut_traffic"]
    row = CALLS["ut_traffic"]
    assert row.window is not None
    expected = replace(
        row,
        enabled=False,
        interval=90.0,
        page=replace(row.page, style="none"),
        window=replace(row.window, length=7200.0),
        indicators=None,
        timestamp=("time", "at"),
    )
    assert call == expected


def test_call_query_is_replaced() -> None:
    """A query replaces the catalogue's, so that an empty one sends nothing."""
    polling = parse("polling: {user_terminal_components: {query: {}}, sites: {query: {a: 1}}}", {}).polling
    assert polling["user_terminal_components"].query == {}
    assert polling["sites"].query == {"a": "1"}


def test_call_window_may_be_none_or_added() -> None:
    """`none` asks for no time span; a mapping gives one to a call that has none."""
    polling = parse("polling: {ut_traffic: {window: none}, usage_consumption: {window: {length: 1d}}}", {}).polling
    assert polling["ut_traffic"].window is None
    window = polling["usage_consumption"].window
    assert window is not None
    assert (window.length, window.start_param) == (86400.0, "startDateTime")


def test_call_may_ask_for_each_terminal() -> None:
    """for_each with its place in the path is accepted, the path as it is."""
    call = parse("polling: {ut_traffic: {path: '/p/{ut_id}', for_each: user_terminals}}", {}).polling["ut_traffic"]
    assert (call.path, call.for_each) == ("/p/{ut_id}", "user_terminals")


def test_map_replaces_the_named_paths_only() -> None:
    """A path or a list of them replaces that of the field; its other properties and all other fields stay."""
    config = parse("polling: {user_terminals: {map: {site_id: [place.externalId, place.id], last_seen: seen}}}", {})
    assert field(config, "user_terminals", "site_id").paths == ("place.externalId", "place.id")
    assert field(config, "user_terminals", "last_seen") == Field("last_seen", ("seen",), "time", volatile=True)
    assert field(config, "user_terminals", "name") == field(DEFAULTS, "user_terminals", "name")


def test_map_says_unit_and_kind() -> None:
    """Unit is the API's, kind how the number grows; the published unit stays."""
    text = "polling: {ut_traffic: {map: {cnx_tx_bytes: {unit: kB, kind: delta}}}}"
    expected = Field("cnx_tx_bytes", ("cnxTx",), "number", "B", "kB", kind="delta")
    assert field(parse(text, {}), "ut_traffic", "cnx_tx_bytes") == expected


def test_map_keeps_the_unlimited_flag() -> None:
    """A field that may be unlimited stays so when its path is changed."""
    config = parse("polling: {products: {map: {allowance_gb: limit}}}", {})
    assert field(config, "products", "allowance_gb").unlimited == "allowance_unlimited"


def test_map_adds_and_drops_fields() -> None:
    """A new name adds a field, a number when it has a unit, and null drops one."""
    text = """
    polling:
      sites:
        map: {region: area.name, size_m: {path: size, unit: km}, open: {path: isOpen, type: bool}, code: null}
    """
    config = parse(text, {})
    assert field(config, "sites", "region") == Field("region", ("area.name",))
    assert field(config, "sites", "size_m") == Field("size_m", ("size",), "number", "m", "km")
    assert field(config, "sites", "open") == Field("open", ("isOpen",), "bool")
    assert "code" not in {field.name for field in config.polling["sites"].fields}


def test_roles_are_put_into_paths() -> None:
    """A role in braces becomes the configured names, joined with |; other roles keep their default."""
    text = """
    mapping: {roles: {end_customer: [Customer, EC], boss: B}}
    polling: {sites: {map: {b: 'p[role={boss}].id'}}}
    """
    config = parse(text, {})
    assert field(config, "user_terminals", "end_customer_id").paths == ("relatedParty[role=Customer|EC].id",)
    assert field(config, "user_terminals", "party_id").paths[0] == "relatedParty[role=Distribution Partner].id"
    assert field(config, "sites", "b").paths == ("p[role=B].id",)
    assert set(config.mapping.roles) == {"distribution_partner", "end_customer", "boss"}


def test_coordinates_are_swapped_unless_mapped() -> None:
    """lat_lon exchanges the terminals' default paths, also in the shipped file, and leaves own ones alone."""
    first, second = (field(DEFAULTS, "user_terminals", name).paths for name in ("longitude", "latitude"))
    for text in ("mapping: {coordinate_order: lat_lon}", SHIPPED.replace("order: lon_lat", "order: lat_lon")):
        config = parse(text, {})
        assert field(config, "user_terminals", "latitude").paths == first
        assert field(config, "user_terminals", "longitude").paths == second
    own = """
    mapping: {coordinate_order: lat_lon}
    polling: {user_terminals: {map: {latitude: lat, longitude: lon}}}
    """
    assert field(parse(own, {}), "user_terminals", "latitude").paths == ("lat",)


# --- and back -------------------------------------------------------------------------------------

CHANGED = """
instance: b2
profile: training
api:
  client_id: a
  client_secret: b
  proxy: http://p
  rate_limit: {max_requests_per_hour: 90, min_interval: 1ms}
mqtt: {host: 127.0.0.1, username: u, password: p, protocol: 3.1.1, max_payload: 64KiB}
filter: {imeis: [012345670123456]}
location_threshold: 1.5km
removal: {hold_above: {share: 12.5%}}
mapping: {coordinate_order: lat_lon, roles: {end_customer: EC, boss: [A, B]}}
polling:
  sites:
    map: {code: null, size_m: {path: [size, length], unit: km}, region: area, open: {path: o, type: bool}}
  ut_traffic: {window: none, map: {cnx_tx_bytes: {unit: kB, kind: delta}}, indicators: null}
  usage_consumption: {window: {length: 1d}, key: [id, 'x[0].id'], records: null}
"""


@pytest.mark.parametrize("text", ["", SHIPPED, CHANGED])
def test_dump_is_read_back_as_the_same_configuration(text: str) -> None:
    """What the config command prints, with the secrets put back, is the configuration that it came from."""
    config = parse(text, {})
    config_again = parse(dump_yaml(config), {})
    secrets = replace(
        config_again.api,
        client_id=config.api.client_id,
        client_secret=config.api.client_secret,
        proxy=config.api.proxy,
    )
    broker = replace(config_again.mqtt, username=config.mqtt.username, password=config.mqtt.password)
    assert replace(config_again, api=secrets, mqtt=broker) == config


def test_dump_has_every_key_in_the_form_of_the_file() -> None:
    """The effective configuration has all sections and calls, with durations, sizes and shares as text."""
    tree = effective(parse(CHANGED, {}))
    assert list(tree) == list(effective(DEFAULTS))
    assert tree["api"]["timeout"] == {"connect": "10s", "read": "1m", "poll": "10m"}
    assert (tree["mqtt"]["max_payload"], tree["removal"]["hold_above"]["share"]) == ("64KiB", "12.5%")
    assert tree["location_threshold"] == "1500m"
    assert tree["polling"]["sites"]["map"]["code"] is None
    assert tree["polling"]["ut_traffic"]["window"] == "none"


def test_secret_behaves_as_text() -> None:
    """A secret compares, joins and formats as the text that it is."""
    assert Secret("a") == "a"
    assert f"{Secret('a')}b" == "ab"
    assert repr(Secret("a")) == "'***'"


FINGERPRINTS = {
    "user_terminals": "3ac217eb7dfc5691",
    "user_terminal_components": "5bc8748a77679fa3",
    "products": "9726111066c5acab",
    "organizations": "1b483763d3a88c88",
    "sites": "f19a60af180b99ac",
    "ut_link_availability": "d7c4862224e5f08f",
    "ut_signal_quality": "5e8ca925783db951",
    "ut_resource_state": "8adaa74423695cbb",
    "ut_traffic": "e5bc771fff7797b2",
    "ut_link_metrics": "8bb8be6d0213b86b",
    "product_throughput": "2ea4ed2cff2227aa",
    "usage_consumption": "955f3134b0628cd0",
}
"""Call -> its mapping fingerprint. Where one changes, `READING` and the changelog tell what is read anew."""


def test_fingerprint_of_each_call_is_that_of_the_version_before() -> None:
    """A refactoring changes no mapping fingerprint, or every stored record would be `remapped` at the upgrade."""
    fingerprints = {id: mapping_fingerprint(call, DEFAULTS.mapping) for id, call in DEFAULTS.polling.items()}
    assert fingerprints == FINGERPRINTS


def test_fingerprint_follows_the_reading() -> None:
    """It differs when answers would be read otherwise, and only then."""
    call = DEFAULTS.polling["ut_traffic"]
    before = mapping_fingerprint(call, DEFAULTS.mapping)

    def after(text: str) -> str:
        config = parse(text, {})
        return mapping_fingerprint(config.polling["ut_traffic"], config.mapping)

    same = [
        "polling: {ut_traffic: {interval: 1h, path: /x, enabled: no}}",
        "mapping: {online_states: [up]}",
        SHIPPED,
    ]
    other = [
        "polling: {ut_traffic: {map: {cnx_tx_bytes: x}}}",
        "polling: {ut_traffic: {timestamp: at}}",
        "polling: {ut_traffic: {indicators: null}}",
        "mapping: {timezone: Europe/Berlin}",
        "mapping: {unlimited: [none]}",
    ]
    assert {after(text) for text in same} == {before}
    assert before not in {after(text) for text in other}
    assert len({after(text) for text in other}) == len(other)


def test_structs_are_frozen() -> None:
    """Nothing of a configuration can be set after it was read."""
    for kind in key_types(Config).values():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            assert kind.__struct_config__.frozen
            assert kind.__struct_config__.forbid_unknown_fields


URL = "postgresql://bridge:hunter2@db.example.net:5432/oneweb"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"state: {{path: a.db, url: '{URL}'}}", "state.url: expected either state.path or state.url, got both"),
        ("state: {path: null}", "state.path: expected a file name, because there is no state.url"),
        (
            "state: {url: 'mysql://hunter2@a/b'}",
            "state.url: expected an address like postgresql://user@host:5432/database",
        ),
        ("state: {url: 'postgresql://u:hunter2@a:x/b'}", "state.url: expected an address with host, port and database"),
        (f"{{state: {{url: '{URL}'}}, trends: {{path: a.db}}}}", "trends.path: expected nothing: with state.url"),
        ("state: {lease: 1s}", "state.lease: expected a duration from 2s to 5m, got '1s'"),
        ("state: {worker: 'a b'}", "state.worker: expected 1 to 128 characters of ASCII without spaces"),
    ],
)
def test_state_is_in_one_place(text: str, sentence: str) -> None:
    """A file or a server, and not both; the sentence never shows the address."""
    assert sentence in refused(text)
    assert "hunter2" not in refused(text)


@pytest.mark.parametrize("path", ["", "path: null, ", "path: oneweb-bridge.db, "])
def test_address_of_a_server_is_a_secret(path: str) -> None:
    """With it the default of `path` does not count; neither `config` nor the log shows it or its password."""
    config = parse(f"state: {{{path}url: '{URL}'}}", {})
    assert (config.state.url, config.state.lease) == (URL, 15.0)
    assert "hunter2" not in dump_yaml(config)
    masks = Masks()
    masks.add_secrets(*secrets_of_state(config.state))
    assert masks.mask_text(f"cannot reach {URL}: hunter2") == "cannot reach ***: ***"
