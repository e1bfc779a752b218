"""Which of the configured brokers is tried next. Pure."""

from oneweb_bridge.config.schema import Mqtt
from oneweb_bridge.config.servers import servers_of


class ServerList:
    """The servers of one `mqtt` section, tried in their order and then from the first again."""

    def __init__(self, settings: Mqtt) -> None:
        self.settings = settings
        self._servers = servers_of(settings)
        self._index = 0
        self._tried = 0

    @property
    def current(self) -> Mqtt:
        """The settings of the server whose turn it is."""
        return self._servers[self._index]

    def has_several(self) -> bool:
        """Whether there is another one to try."""
        return len(self._servers) > 1

    def begin_round(self) -> None:
        """The current server worked: each of the others may be tried without a pause."""
        self._tried = 0

    def go_to_next(self) -> bool:
        """Goes to the next server. False when each was tried since the last pause, so that it is time for one."""
        self._index = (self._index + 1) % len(self._servers)
        self._tried = (self._tried + 1) % len(self._servers)
        return self._tried > 0
