"""What `history` prints and draws of any value that may be stored, whoever sent it."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from oneweb_bridge.cli import main as cli
from tests.outside import VALUES
from tests.past import BEGIN, Past, sample, traffic

WIDEST = 1.7976931348623157e308
NUMBERS = ("zero", "exact", "largest", "smallest", "tiny", "huge", "negative_huge", "fraction")
TEXTS = ("empty_text", "spaces", "long_text", "text_nan", "nul", "emoji")
STORED = {name: json.loads(VALUES[name]) for name in (*NUMBERS, *TEXTS)} | {
    "lines": "a\nb\x1b[2J\x00\u202ec",
    "widest": WIDEST,
    "least": 5e-324,
}
FORMS = ((), ("--csv",), ("--json",), ("--every", "5m"), ("--plot",), ("--plot", "a.svg"), ("--plot", "a.png"))


@pytest.mark.parametrize("value", STORED.values(), ids=STORED)
async def test_any_value_is_printed_and_drawn(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    """Alone and beside the other extreme, in every form; what people read has no control characters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text("state: {path: bridge.db}\n")
    other = -value if isinstance(value, float) else value
    for minute, x in enumerate((value, value, value, other, other, other if isinstance(value, str) else 0)):
        ts = BEGIN + minute * 60_000
        await past.write(sample(ts, sinr_db=x, alone=value), traffic(ts, x))
    span = ("history", "--imei", "T", "--since", "2024-10-03T00:00:00Z", "--until", "2024-10-06T00:00:00Z")
    for form in FORMS:
        assert cli.main([*span, *form]) == 0, (form, capsys.readouterr())
        lines = capsys.readouterr().out.split("\n")
        assert form in (("--csv",), ("--json",)) or all(line.isprintable() for line in lines)
    ET.parse(tmp_path / "a.svg")
