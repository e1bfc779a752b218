"""How a program flushes to the disk: counted, delayed, and what the disk has promised to keep. Linux with a C compiler.

`flushes.c` is built once into a temporary directory, and loaded before the C library by the program that is examined.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

SOURCE = Path(__file__).with_suffix(".c")
COUNTER_BYTES = 8


class NoCompiler(Exception):
    """The library cannot be built here; the text says what is missing."""


class Flushes(msgspec.Struct, frozen=True):
    """One examined program. `environment` is what it must be started with; `copies` has the files as last flushed."""

    environment: dict[str, str]
    counter: Path
    copies: Path

    def count(self) -> int:
        """How often the program has flushed so far."""
        return int.from_bytes(self.counter.read_bytes(), "little")

    def begin(self, database: Path) -> None:
        """Takes the files of a database that no program has open as flushed."""
        for path in database.parent.glob(f"{database.name}*"):
            shutil.copy(path, self.copies)

    def lose_power(self, database: Path) -> None:
        """Puts the files of a database back to what was flushed, after the program was killed."""
        for suffix in ("", "-wal"):
            path = database.with_name(database.name + suffix)
            path.unlink(missing_ok=True)
            if (flushed := self.copies / path.name).exists():
                shutil.copy(flushed, path)
        database.with_name(f"{database.name}-shm").unlink(missing_ok=True)


@contextlib.contextmanager
def examined(*, delay: float = 0.0, keeps_copies: bool = False) -> Iterator[Flushes]:
    """What one program must be started with. `delay` in seconds. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("there is no C compiler: install gcc")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        library, counter, copies = directory / "flushes.so", directory / "count", directory / "copies"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
        built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if built.returncode:
            raise NoCompiler(f"{SOURCE.name} cannot be built: {built.stderr.strip()[:300]}")
        counter.write_bytes(bytes(COUNTER_BYTES))
        copies.mkdir()
        preloaded = [*os.environ.get("LD_PRELOAD", "").split(), str(library)]
        environment = {"LD_PRELOAD": " ".join(preloaded), "FLUSH_COUNT": str(counter)}
        if delay:
            environment["FLUSH_DELAY_US"] = str(round(1e6 * delay))
        if keeps_copies:
            environment["FLUSH_COPIES"] = str(copies)
        yield Flushes(environment, counter, copies)
