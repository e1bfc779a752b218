"""The log: one line per record, whatever an id contains, and never a secret."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.cli import logs, repeats
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Log


def record(message: str, *arguments: object, error: BaseException | None = None, name: str = "poller") -> Any:
    made = logging.LogRecord(
        f"oneweb_bridge.{name}",
        logging.WARNING,
        __file__,
        1,
        message,
        arguments,
        (type(error), error, None) if error else None,
    )
    made.created, made.msecs = 1750167607.05, 50.0
    return made


def written(message: Any, *secrets: str, as_json: bool = False) -> str:
    masks = Masks()
    masks.add_secrets(*secrets)
    return logs._Formatter(masks, as_json=as_json).format(message)


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts pytest's own logging back."""
    root, names = logging.getLogger(), ("oneweb_bridge", "oneweb_bridge.mqtt", "stamina")
    hook = sys.excepthook
    handlers, levels = root.handlers[:], [(name, logging.getLogger(name).level) for name in names]
    level = root.level
    yield
    sys.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels:
        logging.getLogger(name).setLevel(before)


def test_text_line_has_time_level_and_where() -> None:
    """A line says when (UTC, milliseconds), how bad, where, and what."""
    assert written(record("%s: %d records", "sites", 3)) == (
        "2025-06-17T13:40:07.050Z warning poller: sites: 3 records"
    )


def test_json_line_has_the_same_members() -> None:
    """As JSON, each record is one object."""
    assert json.loads(written(record("a %s", "b"), as_json=True)) == {
        "time": "2025-06-17T13:40:07.050Z",
        "level": "warning",
        "logger": "poller",
        "message": "a b",
    }


@given(st.text(max_size=30), st.booleans())
def test_record_is_one_line_whatever_it_says(text: str, as_json: bool) -> None:
    """No id can make a second line, forge an entry or move the terminal's cursor."""
    line = written(record("%s", text), as_json=as_json)
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or ord(character) == 127 for character in line)


@pytest.mark.parametrize("as_json", [False, True])
def test_secret_is_never_written(as_json: bool) -> None:
    """A secret is masked wherever it stands: in the message, its arguments, or the text of an error."""
    logged = record("the token %s", "s3cret-word", error=ValueError("sent s3cret-word twice: s3cret-word"))
    line = written(logged, "s3cret-word", as_json=as_json)
    assert "s3cret-word" not in line
    assert line.count("***") == 3


@pytest.mark.parametrize("secret", ['pa"ss\\word', "pass\nword", "pässwörd", "tab\tword"])
@pytest.mark.parametrize("as_json", [False, True])
def test_secret_with_odd_characters_is_masked(secret: str, as_json: bool) -> None:
    """Also a secret that is written differently in JSON or on one line."""
    line = written(record("x %s y", secret), secret, as_json=as_json)
    assert "word" not in line
    assert "wörd" not in line
    assert "***" in line


def test_secret_inside_another_is_masked_whole() -> None:
    """Of a secret that contains another one nothing is left, in whatever order they are given."""
    for secrets in (("abcd", "abcd-efgh"), ("abcd-efgh", "abcd")):
        assert "efgh" not in written(record("x abcd-efgh y"), *secrets)


def test_tiny_secret_does_not_mask_the_log() -> None:
    """A password of a letter or none is not looked for, or every line would be stars."""
    assert written(record("a bad answer"), "a", "").endswith("a bad answer")


def test_error_keeps_its_lines() -> None:
    """A traceback is more than one line in the text form, and one object in JSON."""
    logged = record("failed", error=ValueError("why"))
    assert written(logged).splitlines()[-1] == "ValueError: why"
    assert "ValueError: why" in json.loads(written(logged, as_json=True))["message"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_set_up_writes_to_standard_error(form: Any, restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes to standard error in the chosen form and level, and what libraries say only when it is bad."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    masks = Masks()
    masks.add_secrets("s3cret")
    logs.set_up(Log(level="info", format=form), masks)
    logging.getLogger("oneweb_bridge.poller").debug("hidden")
    logging.getLogger("oneweb_bridge.poller").info("shown s3cret")
    logging.getLogger("some.library").info("hidden")
    logging.getLogger("some.library").warning("shown too")
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "shown ***" in lines[0]
    assert "shown too" in lines[1]
    assert all(line.startswith("{") for line in lines) is (form == "json")


def test_set_up_again_changes_the_level(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload takes the new level and does not write twice."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.set_up(Log(level="error"), Masks())
    logging.getLogger("oneweb_bridge.poller").info("hidden")
    logs.set_up(Log(level="debug"), Masks())
    logging.getLogger("oneweb_bridge.poller").debug("shown")
    assert len(out.getvalue().splitlines()) == 1


def test_last_words_of_a_bug_are_masked(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback that ends the process goes through the log, so that a secret in its text is hidden."""
    out, masks = io.StringIO(), Masks()
    masks.add_secrets("s3cret-word")
    monkeypatch.setattr(sys, "stderr", out)
    logs.set_up(Log(), masks)
    try:
        raise RuntimeError("http://user:s3cret-word@proxy")
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    assert "RuntimeError: http://user:***@proxy" in out.getvalue()
    assert "report it" in out.getvalue()


# ── lines that repeat ──────────────────────────────────────────────────────────────────────────


class LogUnderTest:
    """A handler over a text, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._out = io.StringIO()
        self.handler = repeats.CountingHandler(self._out, lambda: self.now)

    def write(self, text: str, level: int = logging.ERROR, name: str = "asyncio", line: int = 1) -> None:
        self.handler.handle(logging.LogRecord(name, level, "x.py", line, "%s", (text,), None))

    def new_lines(self) -> list[str]:
        """What was written since the last look."""
        lines = self._out.getvalue().splitlines()
        self._out.seek(0)
        self._out.truncate()
        return lines


@pytest.fixture
def log() -> Iterator[LogUnderTest]:
    made = LogUnderTest()
    yield made
    made.handler.close()


def test_line_that_repeats_is_counted_and_not_written_again(log: LogUnderTest) -> None:
    """Of ten thousand equal lines within a minute one is written, and then how many there were."""
    for _ in range(10_000):
        log.write("accept failed")
    assert log.new_lines() == ["accept failed"]
    log.now += repeats.MINUTE_S
    log.write("accept failed")
    assert log.new_lines() == ["accept failed (this came 9999 times more within a minute)", "accept failed"]


def test_count_is_written_though_nothing_follows(log: LogUnderTest) -> None:
    """The last count does not wait for another line: a timer writes it, and the end of the process does."""
    log.write("b")
    log.write("b")
    assert log.new_lines() == ["b"]
    log.now += repeats.MINUTE_S
    log.handler._write_counts_by_timer()
    assert log.new_lines() == ["b (this came 1 times more within a minute)"]
    log.write("c")
    log.write("c")
    log.handler.close()
    assert log.new_lines() == ["c", "c (this came 1 times more within a minute)"]


def test_lines_of_one_place_are_bounded_whatever_they_say(log: LogUnderTest) -> None:
    """Ten thousand ids with an error each write a bounded number of lines, and another place is still heard."""
    for id in range(10_000):
        log.write(f"{id}: cannot be read", line=1)
    log.write("something else", line=2)
    lines = log.new_lines()
    assert len(lines) == repeats.MAX_LINES_PER_SOURCE + 1
    assert lines[-1] == "something else"
    log.now += repeats.MINUTE_S
    log.write("next", line=2)
    assert any("9940 more lines like this" in line for line in log.new_lines())


def test_different_lines_are_all_written(log: LogUnderTest) -> None:
    """Another text, logger or level is another line."""
    log.write("x")
    log.write("y")
    log.write("x", name="paho")
    log.write("x", level=logging.WARNING)
    assert log.new_lines() == ["x", "y", "x", "x"]


def test_information_may_stand_there_again(log: LogUnderTest) -> None:
    """A connection that comes back twice in a minute is seen twice."""
    log.write("connected", level=logging.INFO)
    log.write("connected", level=logging.INFO)
    assert log.new_lines() == ["connected", "connected"]


def test_every_logger_is_bounded(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what libraries say goes through the counting, with the count in the form of the log."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.set_up(Log(format="json"), Masks())
    for name in ("asyncio", "aiohttp.server", "oneweb_bridge.poller"):
        for _ in range(100):
            logging.getLogger(name).error("out of system resource")
    assert len(out.getvalue().splitlines()) == 3
    logs.set_up(Log(), Masks())
    messages = [json.loads(line)["message"] for line in out.getvalue().splitlines()]
    assert messages[3:] == ["out of system resource (this came 99 times more within a minute)"] * 3


def test_count_for_a_closed_stream_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What was counted is not written to a stream that is closed, and that is no error of the log."""
    out = io.StringIO()
    handler = repeats.CountingHandler(out)
    for _ in range(3):
        handler.handle(record("%s", "again"))
    out.close()
    handler.close()

    assert capsys.readouterr().err == ""
