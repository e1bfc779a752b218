"""A PostgreSQL cluster of its own for tests and benches: on a free loopback port, as a user without rights."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from oneweb_bridge.demo import mosquitto

USER = "bridge"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


def find_program(name: str) -> str | None:
    """A program of PostgreSQL, the newest there is; None where it is not installed."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(newest[-1]) if newest else shutil.which(name)


class Cluster:
    """A server on data that exist. `url` is that of its database `postgres`."""

    def __init__(self, command: list[str], user: str | None, port: int, log: Path) -> None:
        self.port = port
        self._command = command
        self._user = user
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        """The address of a database in it."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Executes a statement that is its own transaction."""
        with psycopg.connect(self.url_of(database), autocommit=True) as db:
            db.execute(statement.encode())

    @property
    def is_running(self) -> bool:
        """Whether the server was started and has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        """The processes of the server: the one that was started, and those that it has."""
        if self._process is None:
            return []
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *(int(child) for child in children)]

    def start(self) -> None:
        """Starts the server, and waits until it answers. Raises RuntimeError."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, user=self._user)
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    tail = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL does not start: {error}\n{tail}") from error
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stops the server: SIGINT in order, SIGQUIT at once, as after a loss of power."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None


@contextlib.contextmanager
def run_postgres(*, fsync: bool = False, inside: Path | None = None) -> Iterator[Cluster]:
    """A new cluster that is gone at the end, in a directory below `inside`, which every user can enter.

    Raises RuntimeError where PostgreSQL is missing or does not start.
    """
    initdb, postgres = find_program("initdb"), find_program("postgres")
    if initdb is None or postgres is None:
        raise RuntimeError("PostgreSQL is not installed: run 'make test-postgres'")
    directory = Path(tempfile.mkdtemp(prefix="oneweb-postgres-", dir=inside))
    try:
        user = _give_away(directory)
        data, log = directory / "data", directory / "log"
        arguments = ["-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([initdb, *arguments], check=True, capture_output=True, timeout=START_TIMEOUT_S, user=user)
        port = mosquitto.free_port()
        cluster = Cluster([postgres, *_options(data, port, fsync=fsync)], user, port, log)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _give_away(directory: Path) -> str | None:
    """The user that runs it: PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    return entry.pw_name


def _options(data: Path, port: int, *, fsync: bool) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(data),
        "fsync": "on" if fsync else "off",
        "full_page_writes": "on" if fsync else "off",
        "max_connections": "300",
    }
    more = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return ["-D", str(data), "-p", str(port), *more]
