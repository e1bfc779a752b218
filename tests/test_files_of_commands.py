"""Files that a user names on the command line, for charts and explorations, and the file of the trends."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from oneweb_bridge.cli import main as cli
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.explore import recording
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.trends.file import open_trends
from oneweb_bridge.trends.fold import Moment, fold_trends
from oneweb_bridge.trends.reading import open_history
from tests.past import BEGIN, RULES, open_past, sample
from tests.test_files import PLACES, refuse_access

SPAN = ("--imei", "T", "--since", "2024-10-03T00:00:00Z", "--until", "2024-10-06T00:00:00Z")
CONFIG = "state: {path: bridge.db}\napi: {base_url: 'http://127.0.0.1:9', client_id: a, client_secret: b}\n"
ERRORS = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ESTALE)
Sentence = Callable[[Path], str]


@pytest.fixture(name="sentence_of")
def _sentence_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one sentence of a command that fails by a file, and prints nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text(CONFIG)

    def run(*arguments: str) -> str:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        assert (code in (1, 2), out, err.count("\n")) == (True, "", 1), (code, out, err)
        return err

    return run


def save(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """`explore --save`, as far as it concerns the folder: the API has nothing to say."""

    async def explored(*_: object, **__: object) -> bool:
        recording.save(place, recording.Explored([], {"sites": []}, "", 0), Masks())
        return True

    monkeypatch.setattr("oneweb_bridge.explore.explore", explored)
    return ("explore", "--save", str(place))


def plot(place: Path, _: pytest.MonkeyPatch) -> tuple[str, ...]:
    """`history --plot FILE`; the ending says which picture."""
    return ("history", *SPAN, "--plot", f"{place}.svg")


USES: dict[str, Callable[[Path, pytest.MonkeyPatch], tuple[str, ...]]] = {
    "plot": plot,
    "from": lambda place, _: ("explore", "--from", str(place)),
    "write": lambda place, _: ("explore", "--write", str(place)),
    "save": save,
}


CAN_BE_USED = tuple(("save", make) for make in PLACES if make.__name__ in ("make_missing", "make_directory"))
"""Samples are saved in a directory, which is made where it is missing."""


async def write_samples(directory: Path) -> None:
    """Something to draw."""
    async with open_past(directory) as past:
        await past.write(*(sample(BEGIN + minute * 60_000, sinr_db=1.0) for minute in range(5)))


@pytest.mark.parametrize(
    ("use", "make"), [(use, make) for use in USES for make in PLACES[:5] if (use, make) not in CAN_BE_USED]
)
def test_file_that_cannot_be_used_is_a_sentence(
    tmp_path: Path,
    use: str,
    make: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    sentence_of: Callable[..., str],
) -> None:
    """A name that leads nowhere, to a directory, in circles, or is too long; there is no NUL in an argument."""
    asyncio.run(write_samples(tmp_path))
    place = make(tmp_path)
    if (use, make.__name__) == ("plot", "make_directory"):
        place.with_name(f"{place.name}.svg").mkdir()
    if (use, make.__name__) == ("plot", "make_loop"):
        place.with_name(f"{place.name}.svg").symlink_to(f"{place.name}.svg")
    assert str(place) in sentence_of(*USES[use](place, monkeypatch))


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("use", USES)
def test_file_that_the_system_refuses_is_a_sentence(
    tmp_path: Path, use: str, number: int, monkeypatch: pytest.MonkeyPatch, sentence_of: Callable[..., str]
) -> None:
    """No permission, a read-only or a full file system, a broken disk, a share that is gone: the system's own words."""
    asyncio.run(write_samples(tmp_path))
    place = tmp_path / "file"
    if use in ("from", "save"):
        place.mkdir()
    if use == "write":
        place.write_text(CONFIG)
    arguments = USES[use](place, monkeypatch)
    refuse_access(monkeypatch, place, number)
    sentence = sentence_of(*arguments)
    assert str(place) in sentence
    assert os.strerror(number) in sentence


@pytest.mark.parametrize("make", PLACES)
@pytest.mark.parametrize("read_only", [True, False])
def test_trends_that_cannot_be_used_are_a_sentence(
    tmp_path: Path, make: Callable[[Path], Path], read_only: bool
) -> None:
    """The file of trends.path is named."""
    place = make(tmp_path)
    with pytest.raises(StoreError) as refused, open_trends(place, read_only=read_only):
        pass
    assert str(place) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("read_only", [True, False])
def test_trends_that_the_system_refuses_are_a_sentence(
    tmp_path: Path, number: int, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the system's own words."""
    place = tmp_path / "file"
    refuse_access(monkeypatch, place, number)
    with pytest.raises(StoreError, match=os.strerror(number)) as refused, open_trends(place, read_only=read_only):
        pass
    assert str(place) in str(refused.value)


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "-c", f"{LONG}.yaml"),
        ("run", "-c", f"{LONG}.yaml"),
        ("backup", "-c", "long.yaml", "copy.db"),
        ("history", "-c", "long.yaml", *SPAN),
        ("config", "-c", "secret.yaml"),
    ],
)
def test_name_that_is_too_long_is_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, sentence_of: Callable[..., str]
) -> None:
    """Of the configuration, of the trends, and of a secret where systemd hands some over."""
    asyncio.run(write_samples(tmp_path))
    (tmp_path / "long.yaml").write_text(f"{CONFIG}trends: {{path: {LONG}.db}}\n")
    (tmp_path / "secret.yaml").write_text(CONFIG.replace("client_secret: b", f"client_secret_file: {LONG}"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert os.strerror(errno.ENAMETOOLONG) in sentence_of(*arguments)


@pytest.mark.parametrize("number", ERRORS)
def test_trends_that_the_system_refuses_end_no_pass_and_no_replay(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding names it in its outcome, and reading in an error of the store's own."""
    asyncio.run(write_samples(tmp_path))
    place, now = tmp_path / "gone.db", Moment(api=0, steady=0)
    refuse_access(monkeypatch, place, number)
    outcome = fold_trends(tmp_path / "bridge.db", place, RULES, now, is_known=True, stop=Event())
    assert os.strerror(number) in outcome.error
    with pytest.raises(StoreError, match=os.strerror(number)), open_history(tmp_path / "bridge.db", place):
        pass


# A file system that is full takes root's rights to make; this device is always full, and macOS has none like it.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_on_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    """What is printed to a file may not fit."""
    (tmp_path / "bridge.yaml").write_text(CONFIG)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "oneweb_bridge", "config", "-c", str(tmp_path / "bridge.yaml")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "oneweb-bridge: the output cannot be written (No space left on device)\n"
