"""The documentation: what a user can meet is in it, and what is in it is true."""

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from paho.mqtt.client import topic_matches_sub

from oneweb_bridge.cli import main
from oneweb_bridge.commands import decode as commands
from oneweb_bridge.decode.catalogue import CALLS, Call, Field
from oneweb_bridge.decode.records import KEYS
from oneweb_bridge.decode.values import INTEGER_SUFFIXES
from oneweb_bridge.model.records import Row, RowType, Status
from oneweb_bridge.mqtt import topics
from oneweb_bridge.mqtt.topics import CommandTopic, parse_command_topic
from oneweb_bridge.web.bridge_metrics import LEASE_METRICS, METRICS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "oneweb_bridge"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "mosquitto/README.md",
    ROOT / "deploy/README.md",
    ROOT / "deploy/node-red/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above; nothing when there is no such heading."""
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.MULTILINE | re.DOTALL)
    return match[2] if match else ""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", text, re.MULTILINE | re.DOTALL)


def mentions(text: str, word: str) -> bool:
    """Whether a word stands in the text in the form of code."""
    return f"`{word}`" in text


# ── the command line ───────────────────────────────────────────────────────────────────────────


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in main.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_command_is_documented(name: str) -> None:
    """Every command of the command line is in README's table and has a section in docs/commands.md."""
    assert f"| `oneweb-bridge {name}` |" in page("README.md")
    assert section(page("docs/commands.md"), f"oneweb-bridge {name}")


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_options_of_command_are_documented(name: str) -> None:
    """Every option of a command is in its section, or among those that all commands have."""
    text = page("docs/commands.md")
    known = section(text, f"oneweb-bridge {name}") + section(text, "Command line")
    options = {option for action in subcommands()[name]._actions for option in action.option_strings}

    assert set() == {option for option in options - {"-h", "--help"} if not mentions(known, option)}


def test_documented_commands_exist() -> None:
    """README and docs/commands.md describe no command that the program does not have."""
    names = re.findall(r"^\| `oneweb-bridge (\w+)` \|", page("README.md"), re.MULTILINE)
    names += re.findall(r"^### oneweb-bridge (\w+)$", page("docs/commands.md"), re.MULTILINE)

    assert names
    assert set() == set(names) - set(subcommands())


def test_documented_options_exist() -> None:
    """The section of a command describes no option that the command does not have."""
    for name, parser in subcommands().items():
        options = {option for action in parser._actions for option in action.option_strings}
        documented = re.findall(r"`(--[a-z-]+)`", section(page("docs/commands.md"), f"oneweb-bridge {name}"))

        assert set() == set(documented) - options, name


def test_exit_codes_are_documented() -> None:
    """Each exit code of the program has a row in docs/operating.md."""
    for code in (main.DONE, main.FAILED, main.WRONG):
        assert f"\n| {code} |" in page("docs/operating.md")


# ── calls and commands over MQTT ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("call", CALLS)
def test_call_is_documented(call: str) -> None:
    """Every call has a row in docs/commands.md and docs/configuration.md and a section in docs/topics.md."""
    assert f"\n| `{call}`" in page("docs/commands.md")
    assert f"\n| `{call}`" in page("docs/configuration.md")
    assert section(page("docs/topics.md"), call)


TREE = topics.TopicTree("oneweb", "main", "journal")


def command_topics() -> list[str]:
    topics = [name.replace("polling/+", "polling/{call}") for name in TREE.command_filters()]
    return [
        *(name for name in topics if not name.endswith("+")),
        *(f"oneweb/bridge/{way}/{name}" for way in ("request", "response") for name in commands.REQUESTS),
        "oneweb/bridge/polling/{call}/result",
    ]


@pytest.mark.parametrize("topic", command_topics())
def test_command_topic_is_documented(topic: str) -> None:
    """Every topic of a command, and of its answer, is in docs/commands.md in full."""
    assert mentions(page("docs/commands.md"), topic)


def test_every_verb_has_an_example() -> None:
    """Each verb of polling and each request has a line to copy."""
    verbs = {(address.kind, address.verb or address.name) for address, _ in published()}

    assert {("polling", verb) for verb in ("set", "enabled", "interval", "poll")} <= verbs
    assert {("request", name) for name in commands.REQUESTS} <= verbs


def published() -> Iterator[tuple[CommandTopic, bytes]]:
    """The commands that the lines of mosquitto_pub in all pages send."""
    for path in PAGES:
        for line in "".join(blocks(path.read_text(encoding="utf-8"), "sh")).splitlines():
            if line.startswith("mosquitto_pub "):
                yield sent(line)


def sent(line: str) -> tuple[CommandTopic, bytes]:
    words = shlex.split(line)
    given = dict(pairwise(words))
    assert not {"-h", "-p"} & given.keys(), line
    assert ("-n" in words) != ("-m" in words), line
    address = parse_command_topic(given["-t"], "oneweb")
    assert address is not None, line
    return address, b"" if "-n" in words else given["-m"].encode()


def test_command_lines_are_obeyed() -> None:
    """Every mosquitto_pub line of the documentation is a command that the bridge understands."""
    topics = list(published())

    assert len(topics) > 10
    for address, payload in topics:
        if not commands.is_no_command(address, payload, retain=False):
            commands.decode_command(address, payload)


# ── topics and payloads ────────────────────────────────────────────────────────────────────────


def rows(what: str) -> Iterator[Row]:
    """Rows of the journal of this kind, one for each sort of topic that it can lead to."""
    event = b'{"record": {}, "clears": [], "components": {}, "changed": {}}'
    entities: dict[str, tuple[tuple[str, str], ...]] = {
        "components": (("terminal", ""),),
        "state": (("call", "state"), ("terminal", "relations")),
        "metric": (("terminal", "presence"), ("terminal", "REPORT"), ("product", "throughput")),
        "history": (("terminal", "REPORT"), ("product", "throughput")),
        "usage": (("product", "BUCKET"), ("usage", "")),
        "forecast": (("product", "BUCKET"), ("usage", "")),
        "clear": (("product", "BUCKET"), ("usage", "")),
        "alert": (("bridge", ""),),
    }
    for entity, name in entities.get(what, tuple((e, "") for e in ("terminal", "product", "organization", "site"))):
        body = b'["usage", "forecast"]' if what == "clear" else event
        yield Row(1, 1, entity, "ID", what, name, 1, body)  # type: ignore[arg-type]  # it is one of What


def topic_classes() -> list[str]:
    """Every topic class, as the journal's kinds of rows lead to it, and the bridge's own."""
    topics = {TREE.status, TREE.info, TREE.head, TREE.probe}
    for what in get_args(RowType):
        for row in rows(what):
            topics |= {pattern(message.topic, row.entity) for message in TREE.messages_of_row(row)}
            if (
                what in ("usage", "metric")
                and row.entity == "product"
                and (message := TREE.replay_message(row)) is not None
            ):
                topics.add(pattern(message.topic, row.entity))
    return sorted(topics)


def pattern(topic: str, entity: str) -> str:
    """A topic as the table of all topics writes it, with names in braces for what varies."""
    if "/event/" in topic:
        return topic.replace(f"/{entity}/ID", "/{entity}/{id}")
    key = KEYS.get(entity, "id")  # type: ignore[call-overload]  # a bridge is no record
    return topic.replace("/ID", f"/{{{key}}}").replace("REPORT", "{report}").replace("BUCKET", "{bucket_id}")


@pytest.mark.parametrize("topic", topic_classes())
def test_topic_class_is_documented(topic: str) -> None:
    """Every topic that the bridge publishes has a row in the table of all topics."""
    assert f"\n| `{topic}`" in section(page("docs/topics.md"), "All topics")


@pytest.mark.parametrize("topic", topic_classes())
def test_bridge_may_write_the_topic(topic: str) -> None:
    """The access rules that are shipped let the bridge publish on every topic that it publishes on."""
    rules = page("mosquitto/acl").partition("\nuser bridge\n")[2].partition("\nuser ")[0]
    allowed = re.findall(r"^topic write (\S+)$", rules, re.MULTILINE)

    for entity in ("terminal", "product", "organization", "site"):
        assert any(topic_matches_sub(rule, topic.replace("{entity}", entity)) for rule in allowed)


def test_every_kind_of_row_leads_to_a_documented_topic() -> None:
    """The list of topic classes above is complete: no kind of row is without one."""
    for what in get_args(RowType):
        assert any(TREE.messages_of_row(row) for row in rows(what)), what


@pytest.mark.parametrize("name", ["docs/topics.md", "docs/commands.md"])
def test_examples_are_payloads(name: str) -> None:
    """Every JSON example is one object, in one line as it is published."""
    examples = blocks(page(name), "json")

    assert examples
    for example in examples:
        assert isinstance(json.loads(example), dict)
        assert example.count("\n") == 1


@pytest.mark.parametrize("status", get_args(Status))
def test_status_of_a_call_is_documented(status: str) -> None:
    """Every status that a call can have is explained."""
    assert f"\n| `{status}` |" in page("docs/topics.md")


def test_id_examples_are_true() -> None:
    """The examples of encoded ids are what the code makes of them."""
    pairs = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \|$", section(page("docs/topics.md"), "Ids in topics"), re.MULTILINE
    )
    pairs = [pair for pair in pairs if not pair[0].startswith("A-Z") and pair != ("_", "__")]

    assert len(pairs) >= 5
    for id, level in pairs:
        assert topics.encode_id(id) == level
    assert topics.encode_id("x" * 80) in page("docs/topics.md")


# ── fields ─────────────────────────────────────────────────────────────────────────────────────


def field_rows(call: Call) -> dict[str, tuple[str, str]]:
    """The fields of a call's records or samples with type and unit, as the tables are to say them."""
    rows = {KEYS[call.entity]: ("text", "")}
    if call.reads == "components":
        return rows | {"components": ("object", "")}
    if call.reads == "report":
        rows |= {"report": ("text", ""), "time": ("time", ""), "ts": ("integer", "ms")}
        rows |= {"product_name": ("text", "")} if call.entity == "product" else {}
    for field in call.fields:
        rows[field.name] = (type_of(field), field.unit)
        if field.unlimited:
            rows[field.unlimited] = ("boolean", "")
    if call.reads == "usage":
        rows |= {"time": ("time", ""), "ts": ("integer", "ms"), "cycle_started": ("boolean", "")}
    return rows


def type_of(field: Field) -> str:
    if field.type == "number":
        return "integer" if field.name.endswith(INTEGER_SUFFIXES) else "float"
    return {"text": "text", "word": "text", "time": "time", "bool": "boolean"}.get(field.type, "list of texts")


@pytest.mark.parametrize("call", CALLS)
def test_field_table_equals_the_catalogue(call: str) -> None:
    """The table of a call names every field with its type and unit, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*?) ?\|", section(page("docs/topics.md"), call), re.MULTILINE)

    assert field_rows(CALLS[call]) == {name: (kind.strip(), unit.strip()) for name, kind, unit in rows}


@pytest.mark.parametrize("call", [call for call in CALLS if call != "user_terminal_components"])
def test_example_has_only_known_fields(call: str) -> None:
    """The first example of a call has no field that its table does not have."""
    example = json.loads(blocks(section(page("docs/topics.md"), call), "json")[0])

    assert set() == set(example) - set(field_rows(CALLS[call]))


def test_component_fields_are_documented() -> None:
    """What a component is made of is said, though it is no field of its own."""
    text = section(page("docs/topics.md"), "user_terminal_components")
    for field in CALLS["user_terminal_components"].fields:
        assert mentions(text, field.name)


# ── configuration, alerts, packages ────────────────────────────────────────────────────────────

OPEN = ("map", "query", "roles")
"""Keys whose members are names of the user's own."""


def config_keys(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        key = f"{above}{name}"
        if above == "polling.":
            key = "polling.<call>"
        yield key
        if isinstance(value, dict) and name not in OPEN:
            yield from config_keys(value, f"{key}.")


@pytest.mark.parametrize("key", sorted(set(config_keys(yaml.safe_load(page("bridge.yaml")))) - {"polling"}))
def test_configuration_key_is_documented(key: str) -> None:
    """Every key of bridge.yaml has a row in docs/configuration.md."""
    assert f"\n| `{key}` |" in page("docs/configuration.md")


def alert_kinds() -> set[str]:
    """The kinds of all alerts, from the source: Alert(kind="…") and ….alert("…", …)."""
    kinds = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                kinds |= set(kinds_of(node))
    return kinds


def kinds_of(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    given = [word.value for word in node.keywords if word.arg == "kind"] if name in ("Alert", "Alarm") else []
    given += node.args[:1] if name in ("alert", "_alert") else []
    yield from (str(value.value) for value in given if isinstance(value, ast.Constant))


def test_alert_kinds_are_found() -> None:
    """The search for kinds of alerts finds both forms in which the source raises them."""
    assert {"removal_held", "row_set_aside"} <= alert_kinds()


@pytest.mark.parametrize("kind", sorted(alert_kinds()))
def test_alert_is_documented(kind: str) -> None:
    """Every kind of alert has a row that says what to do."""
    assert f"\n| `{kind}` |" in section(page("docs/operating.md"), "Alerts")


def test_documented_alerts_exist() -> None:
    """The table of alerts has no kind that nothing raises."""
    kinds = set(re.findall(r"^\| `(\w+)` \|", section(page("docs/operating.md"), "Alerts"), re.MULTILINE))

    assert set() == kinds - alert_kinds()


def test_health_is_documented() -> None:
    """Every path of the health endpoint, and the name of every metric, is in docs/operating.md."""
    source = (PACKAGE / "web" / "health.py").read_text(encoding="utf-8")
    paths = re.findall(r'web\.get\("(/\w+)"', source)

    assert paths
    for name in (*paths, *(f"oneweb_bridge_{metric or 'info'}" for metric in (*METRICS, *LEASE_METRICS))):
        assert mentions(page("docs/operating.md"), name)


def packages() -> list[str]:
    packages = [path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")]
    return sorted(name for name in packages if name != ".")


@pytest.mark.parametrize("name", packages())
def test_package_is_documented(name: str) -> None:
    """Every package has a row in CONTRIBUTING.md that says what lives there."""
    assert f"| `{name}/` |" in section(page("CONTRIBUTING.md"), "Where what lives")


# ── the pages themselves ───────────────────────────────────────────────────────────────────────


def test_readme_begins_with_the_two_commands() -> None:
    """The first screen of README says `make demo` and `make test`."""
    first = "\n".join(page("README.md").splitlines()[:45])

    assert "make demo" in first
    assert "make test" in first


def test_pictures_are_light() -> None:
    """Those of README and docs are below 200 kB, so that a page on a slow link shows them."""
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".png", ".svg"}]

    assert ROOT / "docs/images/console.png" in pictures
    assert all(path.stat().st_size < 200_000 for path in pictures)


def test_readme_is_of_the_package() -> None:
    """The package's own description is README."""
    assert '\nreadme = "README.md"\n' in page("pyproject.toml")


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(path: Path) -> None:
    """Every link to a file of the project leads to it, and every anchor to a heading."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


RETIRED = (
    r"\bwish(es)?\b",
    r"\banew\b",
    r"has not taken",
    r"nobody can (read|parse)",
    r"\bis not believed",
    r"lost its memory",
    r"\bforgot\b",
    r"the API (does not )?(says?|shows?) it\b",
    r"known to be",
    r"never goes back",
    r"something to look at",
    r"\bdoors?\b",
    r"with what differs",
    r"is judged by",
    r"(let|lets|letting) .{0,30}\bgo\b(?! (over|without))",
)
"""Phrases that had to be read twice. The plain ones are: setting, again, unpublished, unparseable, left out, lost."""


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_page_has_no_retired_phrase(path: Path) -> None:
    """A page says things in the words of the field; examples of payloads and code are not looked at."""
    text = re.sub(
        r"^[ ]*```.*?^[ ]*```$|<!-- clocks: begin.*?clocks: end -->|<!-- soak: .*?soak: end -->",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    text = re.sub(r"`[^`\n]*`", "", text)

    assert [match[0] for phrase in RETIRED for match in [re.search(phrase, text)] if match] == []


def test_pages_are_all_linked_from_readme() -> None:
    """README leads to every page."""
    for path in PAGES[1:]:
        assert f"({path.relative_to(ROOT).as_posix()})" in page("README.md")
