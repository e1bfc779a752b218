"""What the configuration says of the indicators of a stream: their units and kinds, and how late they are. Pure."""

from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.trends.chunks import USAGE, StreamKey
from oneweb_bridge.trends.series import Indicator


def call_of(config: Config, stream: StreamKey) -> Call | None:
    """The call that brings the samples of a stream; None for a report that no call has any more."""
    for call in config.polling.values():
        if call.reads == USAGE == stream.report or (call.report and call.report == stream.report):
            return call
    return None


def indicators_of(config: Config, stream: StreamKey) -> dict[str, Indicator]:
    """Unit and kind of each known indicator of a stream."""
    call = call_of(config, stream)
    if call is None:
        return {}
    return {
        field.name: Indicator(field.unit, field.kind if field.type == "number" else "text") for field in call.fields
    }
