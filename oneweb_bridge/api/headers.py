"""Parses the headers of an answer by their standards, and decodes its text to UTF-8. Pure.

A header may stand in several lines, so all functions take the values of all lines. No maintained
library parses Link headers by the standard's own algorithm, nor several challenges, so both are written out here.
Source: RFC 9110 (HTTP; 11.6.1: challenges), RFC 8288 appendix B (Link), RFC 3986 (addresses), RFC 8259 (JSON).
"""

import codecs
import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import msgspec

_SPACE = " \t"
_PORTS = {"http": 80, "https": 443}
_CHARSETS = ("iso8859", "cp125", "utf-16", "utf-32")
"""Encodings that a header may name. Some others take very long to decode, or are no encodings of text."""


class Link(msgspec.Struct, frozen=True):
    """A link to `target`, which may be relative, with its relations in lower case. `anchor`: the page it belongs to."""

    target: str
    relations: frozenset[str]
    anchor: str | None = None


def links(lines: Sequence[str]) -> tuple[list[Link], bool]:
    """The links of all Link headers, and whether every header follows the grammar to its end."""
    all_links: list[Link] = []
    is_complete = True
    for line in lines:
        try:
            all_links.extend(_LinkScanner(line).links())
        except ValueError:
            is_complete = False
    return all_links, is_complete


class Challenge(msgspec.Struct, frozen=True):
    """A way to sign in that an answer offers: its scheme and its parameters' names are in lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(lines: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers; what follows a mistake in a header is left out."""
    all_challenges: list[Challenge] = []
    for line in lines:
        with contextlib.suppress(ValueError):
            _ChallengeScanner(line).add_to(all_challenges)
    return all_challenges


class _Scanner:
    """Where a header is read, and what is read of it next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _quoted(self) -> str:
        self._expect('"')
        parts = []
        while (char := self._take()) != '"':
            parts.append(self._take() if char == "\\" else char)
        return "".join(parts)

    def _peek_after(self, passed: str) -> str:
        while (char := self._text[self._at : self._at + 1]) and char in passed:
            self._at += 1
        return char

    def _take_until(self, ends: str) -> str:
        start = self._at
        while (char := self._text[self._at : self._at + 1]) and char not in ends:
            self._at += 1
        return self._text[start : self._at]

    def _take(self) -> str:
        self._at += 1
        if self._at > len(self._text):
            raise ValueError("a quoted text without an end")
        return self._text[self._at - 1]

    def _expect(self, char: str) -> None:
        if self._take() != char:
            raise ValueError(f"expected {char}")


class _ChallengeScanner(_Scanner):
    """Parses one WWW-Authenticate header. Source: RFC 9110, 11.2 to 11.6.1.

    Commas separate challenges, and also the parameters of a challenge. A word before an equals sign names a parameter;
    every other word begins a challenge.
    """

    def add_to(self, challenges: list[Challenge]) -> None:
        """Adds the challenges. Raises ValueError where the header does not follow the grammar."""
        while self._peek_after(_SPACE + ","):
            word = self._word()
            if self._peek_after(_SPACE) == "=":
                self._add_parameter(challenges, word)
                continue
            challenges.append(Challenge(word.lower(), {}))
            if self._peek_after(_SPACE) not in (",", ""):
                word = self._word()
                # A token68 may end with equals signs; a parameter has a value behind its own.
                if self._peek_after(_SPACE) == "=" and not self._passes_padding():
                    self._add_parameter(challenges, word)
            self._end_element()

    def _word(self) -> str:
        if not (word := self._take_until(_SPACE + ',="')):
            raise ValueError("expected a word")
        return word

    def _passes_padding(self) -> bool:
        start = self._at
        if self._peek_after(_SPACE + "=") in (",", ""):
            return True
        self._at = start
        return False

    def _add_parameter(self, challenges: list[Challenge], name: str) -> None:
        if not challenges:
            raise ValueError("a parameter of no challenge")
        self._expect("=")
        value = self._quoted() if self._peek_after(_SPACE) == '"' else self._take_until(_SPACE + ",")
        challenges[-1].parameters.setdefault(name.lower(), value)
        self._end_element()

    def _end_element(self) -> None:
        if self._peek_after(_SPACE) not in (",", ""):
            raise ValueError("expected a comma")


class _LinkScanner(_Scanner):
    """Parses one Link header. Source: RFC 8288 appendix B.2 to B.4."""

    def links(self) -> Iterator[Link]:
        """Raises ValueError where the header does not follow the grammar; the links before count."""
        while self._peek_after(_SPACE + ","):
            self._expect("<")
            target = self._take_until(">")
            self._expect(">")
            parameters = dict(reversed(list(self._parameters())))  # of equal names the first counts
            yield Link(target.strip(), frozenset(parameters.get("rel", "").lower().split()), parameters.get("anchor"))
            if self._peek_after(_SPACE):
                self._expect(",")

    def _parameters(self) -> Iterator[tuple[str, str]]:
        while self._peek_after(_SPACE) == ";":
            self._at += 1
            self._peek_after(_SPACE)
            name = self._take_until("=;,").strip(_SPACE).lower()
            value = ""
            if self._peek_after(_SPACE) == "=":
                self._at += 1
                quoted = self._peek_after(_SPACE) == '"'
                value = self._quoted() if quoted else self._take_until(";,").strip(_SPACE)
            yield name, value


def next_pages(lines: Sequence[str], url: str) -> tuple[list[str], bool]:
    """The addresses of the pages after the one at `url`, and whether every Link header can be read."""
    all_links, is_complete = links(lines)
    targets = []
    for link in all_links:
        if "next" in link.relations:
            try:
                if link.anchor is None or resolve(url, link.anchor) == resolve(url, ""):
                    targets.append(resolve(url, link.target))
            except ValueError:
                is_complete = False
    return list(dict.fromkeys(targets)), is_complete


def resolve(base: str, reference: str) -> str:
    """The whole address of a reference in an answer from `base`. Raises ValueError when it is none."""
    url = urljoin(base, reference.strip())
    url.encode()
    origin(url)
    return url


def origin(url: str) -> tuple[str, str, str, int | None]:
    """Scheme, user, host and port: where these are the same, so is the server. Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[0], parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def agreed_number(lines: Sequence[str]) -> int | None:
    """The number in which all lines agree, or None where they have none, or different ones."""
    numbers = {text.strip() for line in lines for text in line.split(",")}
    text = numbers.pop() if len(numbers) == 1 else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None


def record_count(lines: Sequence[str]) -> int | None:
    """The number of records that a Content-Range counts, or None when it counts none, or bytes."""
    if len(lines) != 1:
        return None
    unit, _, counted = lines[0].strip().partition(" ")
    return None if unit.lower() == "bytes" else agreed_number([counted.partition("/")[2]])


def retry_after(lines: Sequence[str], now: float) -> float | None:
    """Seconds from `now`, a time in s since the epoch, for which Retry-After asks to wait; the longest of all lines."""
    waits = [seconds for line in lines if (seconds := _seconds(line.strip(), now)) is not None]
    return max(waits, default=None)


def _seconds(text: str, now: float) -> float | None:
    if text.isascii() and text.isdecimal():
        return float(text[:20])
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def to_utf8(body: bytes, charset: str | None) -> bytes:
    """JSON text in UTF-8 without a byte order mark; a body in an unknown encoding stays as it is.

    JSON is UTF-8, whatever the header says: the header counts only where the body is not UTF-8.
    """
    if body.isascii() and 0 not in body[:4]:
        return body
    encoding = json.detect_encoding(body)
    if encoding == "utf-8" and is_utf8(body):
        return body
    for name in (encoding, _charset(charset)):
        try:
            return body.decode(name).encode()
        except UnicodeError:
            continue
    return body


def is_utf8(body: bytes) -> bool:
    """Whether a body is UTF-8. It is decoded in chunks, because one text can take four times its memory."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(body)
    try:
        for start in range(0, len(view), CHUNK_BYTES):
            decoder.decode(view[start : start + CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


CHUNK_BYTES = 1_000_000


def _charset(name: str | None) -> str:
    try:
        known = codecs.lookup(name or "").name
    except (LookupError, ValueError, TypeError):
        return "utf-8"
    return known if known.startswith(_CHARSETS) else "utf-8"
