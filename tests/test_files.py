"""Files that a user names: whatever is wrong with one, it is a sentence that names it, and never a traceback."""

import asyncio
import errno
import fcntl
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge import explore, tls
from oneweb_bridge.cli import main as cli
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.explore import recording
from oneweb_bridge.store import backup, database, journal, store
from oneweb_bridge.store.backup import BackupError
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.tls import BadFile

REFUSALS = (BackupError, ConfigError, StoreError, BadFile)


def make_missing(directory: Path) -> Path:
    return directory / "nowhere" / "file"


def make_directory(directory: Path) -> Path:
    (directory / "folder").mkdir()
    return directory / "folder"


def make_below_a_file(directory: Path) -> Path:
    (directory / "plain").write_text("")
    return directory / "plain" / "file"


def make_loop(directory: Path) -> Path:
    (directory / "loop").symlink_to("loop")
    return directory / "loop"


def make_long(directory: Path) -> Path:
    return directory / ("x" * 300)


def make_nul(directory: Path) -> Path:
    return directory / "a\0b"


PLACES = (make_missing, make_directory, make_below_a_file, make_loop, make_long, make_nul)


async def open_store(place: Path) -> None:
    async with store.open_store(place):
        pass


async def read_journal(place: Path) -> None:
    async with journal.open_journal(place, "history", read_only=True):
        pass


def back_up(place: Path) -> None:
    source = place.parent.parent / "source.db" if place.parent.name == "nowhere" else place.parent / "source.db"
    if not source.parent.is_dir():
        source = source.parent.parent / "source.db"
    asyncio.run(open_store(source))
    backup.write_backups([backup.Source(source, place)])


def read_secret(place: Path) -> None:
    parse("api: {client_secret_file: " + _quoted(place) + "}", {})


def _quoted(place: Path) -> str:
    return '"' + str(place).replace("\0", "\\0") + '"'


USES: dict[str, Callable[[Path], Any]] = {
    "state.path": lambda place: asyncio.run(open_store(place)),
    "state.path of history": lambda place: asyncio.run(read_journal(place)),
    "state.path of backup": lambda place: backup.write_backups([backup.Source(place, Path("copy.db"))]),
    "backup's target": back_up,
    "configuration": lambda place: load(place, {}),
    "a secret's file": read_secret,
    "ca_file": lambda place: tls.client_context("mqtt.tls", str(place)),
    "cert_file": lambda place: tls.client_context("mqtt.tls", None, str(place), str(place)),
    "ca_file that is looked at again": lambda place: tls.TrustedCas("api.ca_file", str(place)).context(),
}
"""What a file is for -> what the bridge does with it."""


@pytest.mark.parametrize("make", PLACES)
@pytest.mark.parametrize("use", USES)
def test_file_that_cannot_be_used_is_named_in_a_sentence(
    tmp_path: Path, use: str, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads nowhere, to a directory, in circles, or is no name at all, is an error of the program's own."""
    monkeypatch.chdir(tmp_path)
    place = make(tmp_path)
    with pytest.raises(REFUSALS) as refused:
        USES[use](place)
    assert "\n" not in str(refused.value)
    assert str(place) in str(refused.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("use", USES)
def test_file_that_the_system_refuses_is_named_in_a_sentence(
    tmp_path: Path, use: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permission, a read-only or a full file system, a broken disk, a share that is gone: the system's own words."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "file"
    refuse_access(monkeypatch, place, number)
    with pytest.raises(REFUSALS, match=os.strerror(number)) as refused:
        USES[use](place)
    assert str(place) in str(refused.value)


def refuse_access(monkeypatch: pytest.MonkeyPatch, place: Path, number: int) -> None:
    """Lets every use of one file, and of those beside it, fail with an error of the system."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if not isinstance(path, int) and os.fsdecode(path).startswith(str(place)):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *arguments, **named)

        return call

    for module, name in ((os, "open"), (os, "stat"), (io, "open")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))


async def test_file_system_without_locks_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock does not work, as on some network shares, the sentence says so and what to do."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        StoreError, match=r"cannot be locked \(No locks available\): choose a state.path on a local disk"
    ):
        await open_store(tmp_path / "bridge.db")


def test_error_within_the_lock_is_not_taken_for_another_bridge(tmp_path: Path) -> None:
    """Something that would block while the database is in use is no second bridge."""
    with pytest.raises(BlockingIOError, match="a pipe"), database.hold_lock(tmp_path / "bridge.db"):
        raise BlockingIOError("a pipe is full")


async def test_disk_that_is_full_at_the_start_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that cannot be brought to this version because the disk is full is a sentence."""
    monkeypatch.setitem(database.MIGRATIONS, 0, "")
    monkeypatch.setattr(database, "_schema", lambda: "SELECT zeroblob(1 << 62);")
    with pytest.raises(StoreError, match=r"bridge\.db cannot be"):
        await open_store(tmp_path / "bridge.db")


def test_backup_of_the_root_is_refused(tmp_path: Path) -> None:
    """A target without a name of its own is refused as a directory."""
    with pytest.raises(BackupError, match="/ is a directory"):
        backup.write_backups([backup.Source(tmp_path / "bridge.db", Path("/"))])


@pytest.mark.parametrize("make", PLACES[2:5])
def test_samples_that_cannot_be_saved_are_a_sentence(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explore --save` to a place that cannot be a directory says so, and exits with 1."""
    place = make(tmp_path)

    async def explored(*_: object, **__: object) -> bool:
        recording.save(place, recording.Explored([], {"sites": []}, "", 0), Masks())
        return True

    monkeypatch.setattr(explore, "explore", explored)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text("api: {client_id: a, client_secret: b}")
    assert cli.main(["explore", "--save", str(place)]) == 1
    assert capsys.readouterr().err.startswith(f"oneweb-bridge: explore: {place}: ")


def test_demo_without_a_place_for_its_files_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no temporary directory can be made, the demo says so."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert cli.main(["demo", "--duration", "1s"]) == 1
    assert "demo: its temporary files: No usable temporary directory" in capsys.readouterr().err
