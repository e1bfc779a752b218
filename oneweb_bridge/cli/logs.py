"""The log: one line per record whatever an id contains, secrets masked, repeated lines counted."""

import json
import logging
import sys
import time
from contextvars import ContextVar
from types import TracebackType

from oneweb_bridge.cli.repeats import CountingHandler
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Log

INSTANCE: ContextVar[str] = ContextVar("instance", default="")
"""The bridge whose task logs, in a process that has several; empty in one that has a single one."""

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class _Formatter(logging.Formatter):
    """Text for people, or JSON for machines; times in UTC."""

    def __init__(self, masks: Masks, *, as_json: bool) -> None:
        super().__init__()
        self.converter = time.gmtime
        self._as_json = as_json
        self._masks = masks

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        text = self._masks.mask_text(text)
        name = record.name.removeprefix("oneweb_bridge.")
        when = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z"
        instance = getattr(record, "instance", "")
        if self._as_json:
            line = {"time": when, "level": record.levelname.lower(), "logger": name, "message": text}
            return json.dumps(line | ({"instance": instance} if instance else {}))
        lines = text if record.exc_info else text.translate(_CONTROL)
        source = f"[{instance}] {name}" if instance else name
        return f"{when} {record.levelname.lower():7} {source}: {lines}"


def _add_instance(record: logging.LogRecord) -> bool:
    """Notes whose line it is, while its task is known: a count of repeats is written later."""
    record.instance = INSTANCE.get()
    return True


def set_up(settings: Log, masks: Masks) -> None:
    """Directs all logging to standard error in the form of `settings`, its secrets masked."""
    handler = CountingHandler(sys.stderr)
    handler.setFormatter(_Formatter(masks, as_json=settings.format == "json"))
    handler.addFilter(_add_instance)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("oneweb_bridge").setLevel(settings.level.upper())
    logging.getLogger("oneweb_bridge.mqtt").setLevel(logging.WARNING)
    sys.excepthook = _log_bug


def _log_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Writes an unhandled error to the log, which masks secrets: its text may quote anything."""
    logging.getLogger("oneweb_bridge").critical("this is a bug, please report it", exc_info=(kind, error, trace))
