"""Samples that can be shown: ids, names, positions and serial numbers replaced, form and joins kept.

Every text is replaced word by word, but for what is vocabulary: names of members, roles, states, units, times. The
same word becomes the same word everywhere, also inside an address or a longer id, so that joins stay. What a word
becomes depends on chance alone: nothing of the original is in it but its form.
"""

import math
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.values import snake
from oneweb_bridge.explore.evidence import find_list, replace_items

BASE_URL = "{base_url}"
"""What stands for the API's address in a saved answer."""
MIN_ID_CHARS = 5
"""Shorter texts in a request are no ids."""
SAMPLE_RECORDS = 3
"""How many records of each call are in a sample."""

_WORDS = re.compile(r"[A-Za-z0-9]+|[^\W_]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_AMOUNT = re.compile(
    r"-?\d{1,6}(\.\d{1,9})?( ?(GB|MB|kB|TB|B|Mbps|kbps|bps|dB|dBm|dB/K|%|ms|GB of data|blocks?))?", re.IGNORECASE
)
_VOCABULARY = frozenset(
    (
        *(
            "role",
            "type",
            "status",
            "resourceState",
            "indicatorUnit",
            "unit",
            "units",
            "collectionType",
            "indicatorType",
        ),
        *(
            "counterType",
            "level",
            "usageType",
            "bucketType",
            "report",
            "granularity",
            "relationshipType",
            "geometryType",
        ),
        *("spatialRef", "partition", "version", "hardwareVersion", "versionNumber", "columns", "serviceGrade"),
    )
)
_KEPT_WORDS = frozenset(
    ("unlimited", "static", "dynamic", "gold", "silver", "platinum", "online", "offline", "na", "n/a")
)
_AXES = frozenset(("x", "y", "z"))
_POSITION_NAME = re.compile(
    r"(?:^|_)(?:lat|long?|lng|alt|coordinates?|position|elevation)(?:_|$)|(?:latitude|longitude|altitude)(?:_|$)"
)
"""What names of positions look like, in snake_case: an API that deviates has other names than the catalogue."""
_ID_NAME = re.compile(
    r"(?:^|_)(?:ids?|eid|serial|zip|postal_code|post_?code)(?:_|$)|(?:imei|imsi|iccid|msisdn|serial_?number|serial_?no)(?:_|$)"
)
_LOWER_CASE_IDS = frozenset(("externalid", "parentid"))
_PATH_WORDS = frozenset(
    word for call in CALLS.values() for word in (*_WORDS.findall(call.path), "https", "http", "api", "oneweb", "net")
)


def samples(bodies: Iterable[tuple[str, Any]], chance: random.Random | None = None) -> dict[str, Any]:
    """Call -> a sample of its answer that can be shown."""
    cut = {call: cut_records(body, SAMPLE_RECORDS) for call, body in bodies}
    mask = Mask.of(cut.values(), chance)
    return {call: mask.mask_value(body, "") for call, body in cut.items()}


def cut_records(body: Any, count: int) -> Any:
    """An answer with no more than so many of its records."""
    listed = find_list(body)
    if listed is None:
        return body if not isinstance(body, list) else body[:count]
    return replace_items(body, listed.items[:count]) if len(listed.items) > count else body


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield name
            yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)
    elif value is not None:
        yield str(value)


class Mask:
    """Replaces values. The same word always becomes the same. `base_url` is the beginning of addresses of the API."""

    def __init__(self, chance: random.Random, used_words: set[str], base_url: str = "") -> None:
        self._chance = chance
        self._used_words = used_words
        self._base_url = base_url
        self._texts: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._numbers: dict[float, float] = {}

    @classmethod
    def of(cls, bodies: Iterable[Any], chance: random.Random | None = None, base_url: str = "") -> "Mask":
        """A mask whose words are none of those in the answers."""
        used = {word.casefold() for body in bodies for text in _texts(body) for word in _WORDS.findall(text)}
        return cls(chance or random.SystemRandom(), used, base_url)

    def mask_address(self, address: str) -> str:
        """An address: ids in its path and query are replaced, and the API's own host is left out."""
        is_own = bool(self._base_url) and address.startswith(self._base_url)
        parts = urlsplit(address.removeprefix(self._base_url) if is_own else address)
        path = "/".join(self._segment(segment) for segment in parts.path.split("/"))
        pairs = [(n, self.mask_parameter(v)) for n, v in parse_qsl(parts.query, keep_blank_values=True)]
        query = urlencode(pairs, safe="*$:,")
        host = "" if is_own or not parts.scheme else f"{parts.scheme}://{self._words_of(parts.netloc, _PATH_WORDS)}"
        return f"{BASE_URL if is_own else host}{path}{'?' if query else ''}{query}"

    def _segment(self, segment: str) -> str:
        text = unquote(segment)
        return self._texts.get(text) or (self._words_of(text, _PATH_WORDS) if re.search(r"\d{3}", text) else segment)

    def mask_parameter(self, value: str) -> str:
        """The value of a parameter: what came in an answer before, and what may be an id or a cursor, is replaced."""
        if len(value) < MIN_ID_CHARS or _TIME.match(value) or re.fullmatch(r"\d{1,10}|\d{13}", value):
            return value
        is_opaque = re.search(r"\d{6}", value) or (len(value) > 15 and re.search(r"\d", value))
        return self._texts.get(value) or (self._words_of(value, frozenset()) if is_opaque else value)

    def mask_message(self, text: str) -> str:
        """The text of a refusal, in which only what may be an id is replaced."""
        return re.sub(r"[\w-]+", self._mask_word, text)

    def _mask_word(self, match: re.Match[str]) -> str:
        word = match[0]
        return self._words_of(word, frozenset()) if re.search(r"\d{6}", word) else word

    def mask_value(self, value: Any, name: str) -> Any:
        """One value; `name` is the member that it stands in."""
        if isinstance(value, dict):
            return {self._key(member): self._member(member, below, value) for member, below in value.items()}
        if isinstance(value, list):
            return [self.mask_value(entry, name) for entry in value]
        if isinstance(value, str):
            return self._text(value, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._number(value, name)
        return value

    def _key(self, name: str) -> str:
        """The name of a member; one that is an id itself, as in a map by id, is replaced."""
        return self._text(name, "id") if re.search(r"\d{6}", name) else name

    def _member(self, name: str, value: Any, around: dict[str, Any]) -> Any:
        # The name of a value is vocabulary; a name that stands beside no value may be anybody's.
        if name == "name" and isinstance(value, str) and "value" in around:
            return value
        named = around.get("name")
        if name == "value" and isinstance(named, str) and (_is_id(named) or _is_position(named)):
            return self.mask_value(value, named)
        if name == "rows" and isinstance(around.get("columns"), list):
            return [[self.mask_value(v, str(c)) for c, v in zip(around["columns"], row, strict=False)] for row in value]
        return self.mask_value(value, name)

    def _text(self, text: str, name: str) -> str:
        if name in _VOCABULARY or name.startswith("@") or _TIME.fullmatch(text) or text.casefold() in _KEPT_WORDS:
            return text
        if _AMOUNT.fullmatch(text) and not _is_id(name) and not _is_position(name):
            return text
        if _is_position(name) and _AMOUNT.fullmatch(text):
            return (
                str(self._number(float(text), name))
                if re.fullmatch(r"-?[\d.]+", text)
                else self._words_of(text, frozenset())
            )
        if "://" in text or re.match(r"/\w", text):
            return self.mask_address(text)
        masked = self._words_of(text, frozenset())
        self._texts[text] = masked
        return masked

    def _words_of(self, text: str, kept_words: frozenset[str]) -> str:
        return _WORDS.sub(lambda match: match[0] if match[0] in kept_words else self._word(match[0]), text)

    def _word(self, word: str) -> str:
        replacement = self._words.get(word)
        if replacement is None:
            replacement = next(
                candidate for candidate in self._random_words(word) if candidate.casefold() not in self._used_words
            )
            self._words[word] = replacement
            self._used_words.add(replacement.casefold())
        return replacement

    def _random_words(self, word: str) -> Iterator[str]:
        """Words of the same form; longer ones when those are used up."""
        for attempt in range(1_000_000):
            form = word + "0" * (attempt // 200)
            yield "".join(self._sign(sign) for sign in form)

    def _sign(self, sign: str) -> str:
        if sign.isdigit():
            return self._chance.choice("0123456789")
        letter = self._chance.choice("abcdefghijklmnopqrstuvwxyz")
        return letter.upper() if sign.isupper() else letter

    def _number(self, value: float, name: str) -> float:
        if not math.isfinite(value):
            return value  # A number beyond what a float can have, such as 1e400.
        if _is_position(name):
            # What is near to each other stays so: it shows whether latitude and longitude are swapped.
            if (whole := float(round(value))) not in self._numbers:
                self._numbers[whole] = self._position(value)
            return round(self._numbers[whole] + self._chance.uniform(-0.4, 0.4), len(str(value).partition(".")[2]))
        if _is_id(name) or (isinstance(value, int) and name.casefold().endswith("id")):
            masked = int(self._word(str(abs(int(value)))))
            self._texts[str(value)] = str(masked)
            return masked
        return value

    def _position(self, value: float) -> float:
        """Another number with as many decimals, and beyond 90 exactly when the original is."""
        decimals = len(str(value).partition(".")[2])
        low, high = (91.0, 179.0) if abs(value) > 90 else (1.0, 89.0)
        sign = -1 if value < 0 else 1
        return sign * round(self._chance.uniform(low, high), decimals)


def _is_position(name: str) -> bool:
    """Whether what a member of this name has may say where something is."""
    return name.casefold() in _AXES or _POSITION_NAME.search(snake(name)) is not None


def _is_id(name: str) -> bool:
    """Whether what a member of this name has may tell one thing from all others."""
    return name.casefold() in _LOWER_CASE_IDS or _ID_NAME.search(snake(name)) is not None
