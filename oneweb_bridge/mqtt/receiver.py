"""Takes what the broker delivers on a connection: probes, commands, and Home Assistant's birth message."""

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.model.command import CommandMessage
from oneweb_bridge.mqtt.context import ConnectionContext
from oneweb_bridge.mqtt.handshake import Handshake
from oneweb_bridge.mqtt.link import Received
from oneweb_bridge.mqtt.probing import Prober
from oneweb_bridge.mqtt.topics import response_topic_problem


class Receiver:
    """Gives each message that one connection receives to the part that it is for."""

    def __init__(self, context: ConnectionContext, handshake: Handshake, prober: Prober) -> None:
        self._context = context
        self._handshake = handshake
        self._prober = prober
        self._discovery_prefix = context.callbacks.discovery_prefix()
        self._topics_with_retained: set[str] = set()

    @property
    def filters(self) -> list[str]:
        """The topic filters to subscribe to."""
        tree = self._context.tree
        return [tree.head, tree.probe, *tree.command_filters(), self._birth_topic]

    @property
    def _birth_topic(self) -> str:
        return f"{self._discovery_prefix}/status"

    def receive(self, message: Received) -> None:
        """Takes a message of the broker. Commands wait in one queue only, the bounded one of `on_command`."""
        tree, callbacks = self._context.tree, self._context.callbacks
        if message.topic == tree.head:
            self._handshake.on_head(message.payload)
        elif message.topic == tree.probe:
            self._prober.on_probe(message.payload)
        elif message.topic == self._birth_topic:
            if message.payload == b"online":
                callbacks.on_birth()
        else:
            callbacks.on_command(self._command(message))

    def _command(self, message: Received) -> CommandMessage:
        """A command. Where its sender wants the answer is a topic that a stranger chose: here alone it is checked."""
        topic, tree = message.response_topic, self._context.tree
        problem = None if topic is None else response_topic_problem(topic, tree.base, self._discovery_prefix)
        follows_retained = message.topic in self._topics_with_retained
        if message.retain and self._is_of_known_call(message.topic):
            self._topics_with_retained.add(message.topic)
        return CommandMessage(
            message.topic,
            message.payload,
            message.retain,
            self._context.answer_to(message.topic, topic if problem is None else None, message.correlation),
            follows_retained,
            problem,
            len(topic or "") + len(message.correlation or b""),
        )

    def _is_of_known_call(self, topic: str) -> bool:
        """Whether a command is for a call that there is: others are as many as their senders like."""
        name = topic.removeprefix(f"{self._context.tree.base}/bridge/polling/").partition("/")[0]
        return name == "all" or name in CALLS
