"""A handler of the log that counts lines which repeat, instead of writing them again.

A fault that happens a thousand times a second must not fill the disk. Within a minute an equal
warning or error (logger, level and text) is written once, and lines that come from one place in the
code up to a bound, whatever their texts. The rest is counted, and the count is written when the
minute is over. Records of level info are written each time: a connection that comes back must be visible.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TextIO

MINUTE_S = 60.0
MAX_LINES_PER_SOURCE = 60
"""Lines, whatever their texts, that one place in the code may write in a minute."""


class _Repeated:
    """A record that was written `written` times since a time, and counted `more` times after that."""

    __slots__ = ("more", "record", "since", "written")

    def __init__(self, since: float, record: logging.LogRecord) -> None:
        self.since = since
        self.record = record
        self.written = 0
        self.more = 0


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, and the count of a minute also when nothing follows. `clock` gives monotonic seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._texts: dict[object, _Repeated] = {}
        self._sources: dict[object, _Repeated] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or counts it. The handler's lock is held."""
        now = self._clock()
        self._write_counts(first_written_by=now - MINUTE_S)
        if self._is_new(record, now):
            super().emit(record)

    def close(self) -> None:
        """Writes what was counted."""
        self.acquire()
        try:
            self._write_counts(first_written_by=self._clock())
            if self._timer is not None:
                self._timer.cancel()
        finally:
            self.release()
        super().close()

    def _is_new(self, record: logging.LogRecord, now: float) -> bool:
        kind = (record.name, record.levelno, getattr(record, "instance", ""))
        error = record.exc_info[1] if record.exc_info else None
        text = (*kind, record.getMessage(), repr(error))
        source = self._sources.setdefault((*kind, record.pathname, record.lineno), _Repeated(now, record))
        repeated = self._texts.get(text, source)
        if repeated is not source or source.written >= MAX_LINES_PER_SOURCE:
            repeated.more += 1
            self._start_timer()
            return False
        source.written += 1
        if record.levelno >= logging.WARNING:
            self._texts[text] = _Repeated(now, record)
        return True

    def _write_counts(self, first_written_by: float) -> None:
        """Writes the counts of records first written at `first_written_by` or before, and drops them."""
        for table, text in ((self._texts, "this came {} times more"), (self._sources, "{} more lines like this")):
            # Dictionaries keep their order, so the oldest come first.
            while table and (repeated := table[key := next(iter(table))]).since <= first_written_by:
                del table[key]
                # At exit the stream may be closed before the log.
                if repeated.more and not self.stream.closed:
                    super().emit(_counted(repeated.record, text.format(repeated.more)))

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(MINUTE_S, self._write_counts_by_timer)
            self._timer.daemon = True
            self._timer.start()

    def _write_counts_by_timer(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self._write_counts(first_written_by=self._clock() - MINUTE_S)
            if any(repeated.more for table in (self._texts, self._sources) for repeated in table.values()):
                self._start_timer()
        finally:
            self.release()


def _counted(record: logging.LogRecord, count: str) -> logging.LogRecord:
    message = f"{record.getMessage()} ({count} within a minute)"
    counted = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, None, None)
    counted.instance = getattr(record, "instance", "")
    return counted
