"""`oneweb-bridge check`: tries sign-in, database and broker, and prints for each what to do where it fails."""

import asyncio
import contextlib
from collections.abc import Callable

import aiomqtt

from oneweb_bridge.api.client import open_api
from oneweb_bridge.api.errors import ApiError, Unauthorized
from oneweb_bridge.cli.console_address import look_for_console
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import require_credentials, require_postgres, require_sparkplug
from oneweb_bridge.config.schema import Config, Mqtt
from oneweb_bridge.config.servers import server_name, servers_of
from oneweb_bridge.model.heads import Head, Identity, Place, foreign_sentence, owner_of, read_head
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.link import MqttConnection, require_qos
from oneweb_bridge.mqtt.probing import read_until_probe
from oneweb_bridge.mqtt.topics import SPARKPLUG_NAMESPACE, TopicTree
from oneweb_bridge.store import journal
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable
from oneweb_bridge.store.places import place_of

PROBE_TIMEOUT_S = 10.0


async def check(config: Config, write: Callable[[str], None], masks: Masks | None = None) -> bool:
    """Writes one line per step. True when all went well. `masks` gets the API's tokens.

    The console is no reason to fail: a bridge that does not run yet has none.
    """
    write("ok      configuration: valid")
    results = [await _check_api(config, masks)]
    if config.state.url is not None:
        results.append(await asyncio.to_thread(_check_database, config, config.state.url))
    results += [await _check_broker(config, server) for server in servers_of(config.mqtt)]
    if config.sparkplug.enabled:
        results += [await _check_sparkplug(config, server) for server in servers_of(_sparkplug_broker(config))]
    for is_good, line in results:
        write(f"{'ok    ' if is_good else 'FAILED'}  {line}")
    console = await asyncio.to_thread(look_for_console, config)
    write(f"{'ok    ' if console.is_answering else 'note  '}  {console.sentence}")
    return all(is_good for is_good, _ in results)


async def _check_api(config: Config, masks: Masks | None) -> tuple[bool, str]:
    url = config.api.base_url
    try:
        require_credentials(config)
        async with open_api(config.api, masks) as connection:
            await connection.hello()
    except ConfigError as error:
        return False, f"sign-in: {error}"
    except Unauthorized as error:
        return (
            False,
            f"sign-in: {error}. Check api.client_id and api.client_secret, and that they belong to {url}",
        )
    except ApiError as error:
        return (
            False,
            f"sign-in: {error}. Check api.base_url, api.proxy and api.ca_file, and the way to the Internet",
        )
    return True, f"sign-in: {url} accepts the credentials"


def _check_database(config: Config, url: str) -> tuple[bool, str]:
    """Whether a worker can use the database of `state.url`, and who holds the instance."""
    try:
        require_postgres(config)
        from oneweb_bridge.store.server_check import look_at_server  # noqa: PLC0415 -- its driver is an extra

        state = look_at_server(url, config.instance)
    except (ConfigError, StoreError) as error:
        return False, f"database: {error}"
    return True, f"database: {state.sentence}; {state.holder_of(config.instance)}"


async def _check_broker(config: Config, server: Mqtt) -> tuple[bool, str]:
    where = server_name(server)
    prefix = f"{where}: " if config.mqtt.servers else ""
    here = Place(config.mqtt.base_topic, config.instance)
    try:
        head = await _probe(config, server)
        if owner_of(head, here, await _identity(config)) == "another":
            return False, f"broker: {prefix}{foreign_sentence(head or {}, f'{here.base}/bridge/head', here)}"
    except TimeoutError:
        return False, (
            f"broker: {where} took a probe but did not deliver it. Let this user read and write "
            f"{config.mqtt.base_topic}/bridge/probe in the broker's access rules"
        )
    except (aiomqtt.MqttError, OSError) as error:
        keys = "mqtt.host, port, servers" if config.mqtt.servers else "mqtt.host, port"
        return False, f"broker: {where}: {describe_connection_error(error)}. Check {keys}, tls, username and password"
    return True, f"broker: {where} takes and delivers messages below {config.mqtt.base_topic}"


def _sparkplug_broker(config: Config) -> Mqtt:
    return config.sparkplug.mqtt or config.mqtt


async def _check_sparkplug(config: Config, mqtt: Mqtt) -> tuple[bool, str]:
    """Whether the library is there, and the broker lets this user hear what hosts write."""
    settings = config.sparkplug
    where, commands = server_name(mqtt), f"{SPARKPLUG_NAMESPACE}/{settings.group_id}/NCMD/{settings.edge_node_id}"
    try:
        require_sparkplug(config)
        async with MqttConnection(mqtt, "oneweb-bridge-check-sparkplug") as link:
            await link.subscribe_to(commands)
    except ConfigError as error:
        return False, str(error)
    except (aiomqtt.MqttError, OSError) as error:
        key = "mqtt" if settings.mqtt is None else "sparkplug.mqtt"
        return False, f"sparkplug: {where}: {describe_connection_error(error)}. Check {key} and the access rules"
    return True, f"sparkplug: {where} lets Edge Node {settings.edge_node_id} of group {settings.group_id} connect"


async def _identity(config: Config) -> Identity:
    """The identity in the database; an empty one where it cannot be read, or does not exist yet."""
    with contextlib.suppress(StoreError, StoreUnavailable, StoreDamaged):
        async with journal.open_journal(place_of(config), "mqtt", read_only=True) as rows:
            return await rows.identity.read()
    return Identity()


async def _probe(config: Config, server: Mqtt) -> Head | None:
    """Publishes a probe and reads it back. Returns the head. Raises TimeoutError when the probe does not come."""
    tree, heads = TopicTree(config.mqtt.base_topic, config.instance, ""), list[Head | None]()

    async def subscribe(link: MqttConnection) -> None:
        await link.listen_to(tree.head, tree.probe)
        await require_qos(link, tree.probe)

    def on_message(message: aiomqtt.Message) -> None:
        if str(message.topic) == tree.head:
            heads.append(read_head(bytes(message.payload)))

    await read_until_probe(server, "oneweb-bridge-check", tree.probe, subscribe, on_message, timeout=PROBE_TIMEOUT_S)
    return heads[-1] if heads else None
