"""Samples that can be shown: ids, names, positions and serial numbers replaced, form and joins kept.

Every text is replaced word by word, but for what is vocabulary: names of members, roles, states, units, times. The
same word becomes the same word everywhere, also inside an address or a longer id, so that joins stay. What a word
becomes depends on chance alone: nothing of the original is in it but its form.
"""

import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.explore.evidence import find_list, replace_items

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
_POSITIONS = frozenset(
    ("coordinates", "x", "y", "z", "latitude", "longitude", "lat", "lon", "lng", "elevation", "altitude")
)
_IDS = frozenset(("id", "imei", "imsi", "iccid", "msisdn", "serialnumber", "externalid", "parentid"))
_PATH_WORDS = frozenset(
    word for call in CALLS.values() for word in (*_WORDS.findall(call.path), "https", "http", "api", "oneweb", "net")
)


def samples(bodies: Iterable[tuple[str, Any]], chance: random.Random | None = None) -> dict[str, Any]:
    """Call -> a sample of its answer that can be shown."""
    cut = {call: _cut(body) for call, body in bodies}
    used_words = {word.casefold() for body in cut.values() for text in _texts(body) for word in _WORDS.findall(text)}
    mask = _Mask(chance or random.SystemRandom(), used_words)
    return {call: mask.mask_value(body, "") for call, body in cut.items()}


def _cut(body: Any) -> Any:
    listed = find_list(body)
    if listed is None:
        return body if not isinstance(body, list) else body[:SAMPLE_RECORDS]
    return replace_items(body, listed.items[:SAMPLE_RECORDS])


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


class _Mask:
    """Replaces values. The same word always becomes the same."""

    def __init__(self, chance: random.Random, used_words: set[str]) -> None:
        self._chance = chance
        self._used_words = used_words
        self._words: dict[str, str] = {}
        self._numbers: dict[float, float] = {}

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
        if name == "rows" and isinstance(around.get("columns"), list):
            return [[self.mask_value(v, str(c)) for c, v in zip(around["columns"], row, strict=False)] for row in value]
        return self.mask_value(value, name)

    def _text(self, text: str, name: str) -> str:
        if name in _VOCABULARY or name.startswith("@") or _TIME.fullmatch(text) or text.casefold() in _KEPT_WORDS:
            return text
        if name.casefold() not in _IDS and _AMOUNT.fullmatch(text) and name.casefold() not in _POSITIONS:
            return text
        kept_words = _PATH_WORDS if "://" in text else frozenset[str]()
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
        folded = name.casefold()
        if folded in _POSITIONS:
            if value not in self._numbers:
                self._numbers[value] = self._position(value)
            return self._numbers[value]
        if folded in _IDS or (isinstance(value, int) and folded.endswith("id")):
            return int(self._word(str(abs(int(value)))))
        return value

    def _position(self, value: float) -> float:
        """Another number with as many decimals, and beyond 90 exactly when the original is."""
        decimals = len(str(value).partition(".")[2])
        low, high = (90.5, 179.5) if abs(value) > 90 else (0.5, 89.5)
        sign = -1 if value < 0 else 1
        return sign * round(self._chance.uniform(low, high), decimals)
