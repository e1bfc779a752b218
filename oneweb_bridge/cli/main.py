"""The command `oneweb-bridge`. An error that a user can cause is one sentence and an exit code, never a traceback."""

import argparse
import asyncio
import errno
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge import __version__
from oneweb_bridge.cli import exploring, logs, running
from oneweb_bridge.cli.arguments import (
    FILE,
    Parser,
    parse_call,
    parse_interval_or_file,
    parse_seconds,
    parse_speed,
    parse_terminals,
)
from oneweb_bridge.cli.loading import load_config, log_settings, masked_print, require_single_file
from oneweb_bridge.cli.progress import show_percent
from oneweb_bridge.cli.signals import run_until_signal
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import load, require_postgres
from oneweb_bridge.config.schema import Config, Log
from oneweb_bridge.config.write import dump_yaml, yaml_text
from oneweb_bridge.files import is_there, refusal_of
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable

DONE, FAILED, WRONG = 0, 1, 2
NOTHING_TO_DRAW = "nothing to draw in this span: it has no samples, or a single sample of a counter, which has no rate"

_log = logging.getLogger("oneweb_bridge.cli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The output must not depend on a locale, whatever names are in it; argv may hold bytes that are no text.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        if getattr(options, "command", "run") != "run":
            options.config = require_single_file(options.command, options.config)
        code: int = options.act(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ConfigError as error:
        return _print_error(str(error), WRONG)
    except StoreError as error:
        return _print_error(str(error), FAILED)
    except BrokenPipeError:
        _close_output()
        return DONE
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        _close_output()
        return _print_error(f"the output cannot be written ({refusal_of(error)})", FAILED)
    except KeyboardInterrupt:
        # These run until a signal; of all others nobody may take a part for the whole.
        return DONE if options.act in (_run, _demo, _simulate) else _print_error("interrupted", FAILED)
    return code


_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says of an output that is redirected to a file. Of files that are named the commands speak."""


def _close_output() -> None:
    """The reader of our output has closed it, or its disk is full: nothing more may be written, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(text: str, code: int) -> int:
    print(f"oneweb-bridge: {text}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(prog="oneweb-bridge", description="OneWeb's enterprise API on MQTT.")
    top.add_argument("--version", action="version", version=f"oneweb-bridge {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "run", _run, "runs the bridge until SIGTERM or SIGINT")
    _add_demo(commands)
    _add(commands, "check", _check, "validates the configuration, signs in, reaches the broker")
    exploring.add_options(
        _add(commands, "explore", _explore, "reads each API call as the bridge will, and prints what to change")
    )
    _add_simulate(commands)
    status = _add(commands, "status", _status, "prints the table of all calls")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, for scripts")
    form.add_argument("--open", action="store_true", help="prints the address of the web console instead")
    _add_poll_and_set(commands)
    _add_history(commands)
    backup = _add(
        commands,
        "backup",
        _backup,
        "makes a consistent copy of the database and the trends, also while the bridge runs",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="the copy; must not exist without --force")
    backup.add_argument("--force", action="store_true", help="replaces FILE when it exists")
    _add_migrate(commands)
    _add(commands, "config", _config, "prints the effective configuration, secrets masked")
    _add(commands, "asyncapi", partial(_print_document, "asyncapi"), "prints the AsyncAPI 3.0 document of the topics")
    _add(
        commands, "openapi", partial(_print_document, "openapi"), "prints the OpenAPI 3.1 document of the console's API"
    )
    return top


def _add(
    commands: Any, name: str, act: Callable[[argparse.Namespace], int], about: str, *, configured: bool = True
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    if configured:
        more = "; a folder stands for its *.yaml; repeated for several bridges" if name == "run" else ""
        about = f"default: ./bridge.yaml if there is one{more}"
        command.add_argument("-c", "--config", type=Path, action="append", metavar="FILE", help=about)
        command.set_defaults(command=name)
    command.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    command.add_argument("--log-format", choices=("text", "json"))
    command.set_defaults(act=act)
    return command


def _add_demo(commands: Any) -> None:
    demo = _add(commands, "demo", _demo, "runs simulator, broker and bridge, without configuration", configured=False)
    demo.add_argument("--terminals", type=parse_terminals, default=25, metavar="N", help="how many (default: 25)")
    demo.add_argument(
        "--speed",
        type=parse_speed,
        default=1.0,
        metavar="X",
        help="how fast simulated time passes; the bridge's clock stays as it is",
    )
    demo.add_argument("--duration", type=parse_seconds, metavar="D", help="for example 60s; default: until Ctrl-C")


def _add_simulate(commands: Any) -> None:
    from oneweb_bridge.cli.simulator_options import shape_help
    from oneweb_bridge.simulator import Options

    command = _add(commands, "simulate", _simulate, "runs the simulated OneWeb API alone", configured=False)
    for field in msgspec.structs.fields(Options):
        if field.name == "shape":
            continue
        name, (about, *_) = f"--{field.name.replace('_', '-')}", field.type.__metadata__
        if isinstance(field.default, bool):
            command.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default, help=about)
        else:
            known = "" if field.default is None else f" (default: {field.default})"
            command.add_argument(name, default=field.default, metavar=field.name.upper(), help=f"{about}{known}")
    command.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"plays a variant of the API; NAME is one of {shape_help()}",
    )


def _add_poll_and_set(commands: Any) -> None:
    from oneweb_bridge.commands.decode import SWITCHES
    from oneweb_bridge.decode.catalogue import CALLS

    poll = _add(commands, "poll", _poll, "polls calls now, and waits for the result")
    poll.add_argument("calls", nargs="+", metavar="CALL", type=parse_call, help=", ".join(CALLS) + ", or all")
    change = _add(commands, "set", _set, "enables, disables or changes the interval of a call, also after a restart")
    change.add_argument("call", metavar="CALL", type=parse_call, help=", ".join(CALLS) + ", or all")
    switch = change.add_mutually_exclusive_group()
    switch.add_argument("--enable", action="store_true", default=None, help="polls the call at its interval")
    switch.add_argument("--disable", action="store_true", default=None, help="polls the call only on command")
    switch.add_argument("--enabled", choices=(*SWITCHES, FILE), help="the same in a word; file: as in the file")
    about = "from 10s to 7d, for example 5m; file: as in the configuration file"
    change.add_argument("--interval", type=parse_interval_or_file, metavar="D", help=about)


def _add_history(commands: Any) -> None:
    history = _add(commands, "history", _history, "prints samples and events from the journal and the trends")
    stream = history.add_mutually_exclusive_group(required=True)
    stream.add_argument("--imei", metavar="I")
    stream.add_argument("--product", metavar="P")
    history.add_argument("--report", metavar="R", help="only this report, for example signal_quality")
    history.add_argument("--since", default="24h", metavar="T", help="a time, or a duration before now (default 24h)")
    history.add_argument("--until", metavar="T", help="a time, or a duration before now")
    history.add_argument("--every", metavar="D", help="min, mean, max and count of each interval, for example 1h")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true")
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument(
        "--plot", nargs="?", const="", metavar="FILE", help="draws charts, here or into FILE.svg or FILE.png"
    )


def _add_migrate(commands: Any) -> None:
    about = "moves the whole state of a bridge from SQLite to PostgreSQL or back, or nothing"
    migrate = _add(commands, "migrate", _migrate, about, configured=False)
    side = "a file of SQLite, or postgresql://user@host:5432/database"
    migrate.add_argument("--from", dest="source", required=True, metavar="A", help=f"where the state is: {side}")
    migrate.add_argument("--to", dest="target", required=True, metavar="B", help=f"where it goes: {side}")
    instance = migrate.add_mutually_exclusive_group()
    about = "the configuration of the bridge: names its instance and its trends.path"
    instance.add_argument("-c", "--config", type=Path, action="append", metavar="FILE", help=about)
    instance.add_argument("--instance", metavar="NAME", help="whose state it is, where a database has several")
    migrate.set_defaults(command="migrate")


# ── the commands ───────────────────────────────────────────────────────────────────────────────


def _run(options: argparse.Namespace) -> int:
    return running.run(options, _print_error)


def _demo(options: argparse.Namespace) -> int:
    from oneweb_bridge.demo import demo

    logs.set_up(log_settings(options, Log(level="warning")), Masks())
    try:
        return run_until_signal(demo.run_for(options.duration, options.terminals, options.speed))
    except OSError as error:
        if error.filename is None:
            # Of these Python says itself where it looked.
            return _print_error(f"demo: its temporary files: {error.strerror or refusal_of(error)}", FAILED)
        return _print_error(f"demo: {error.filename}: {refusal_of(error)}", FAILED)


def _check(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli.check import check

    masks = Masks()
    config = load_config(options, masks)
    return DONE if asyncio.run(check(config, masked_print(masks), masks)) else FAILED


def _explore(options: argparse.Namespace) -> int:
    masks = Masks()
    config = load_config(options, masks)
    try:
        return DONE if exploring.run(options, config, masked_print(masks), masks) else FAILED
    except exploring.Refused as error:
        return _print_error(f"explore: {error}", WRONG)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _print_error(f"explore: {error.filename or options.save or ''}: {refusal_of(error)}", FAILED)


def _simulate(options: argparse.Namespace) -> int:
    from oneweb_bridge import simulator
    from oneweb_bridge.cli.simulator_options import simulator_options

    logs.set_up(log_settings(options, Log()), Masks())
    try:
        return run_until_signal(simulator.run(simulator_options(vars(options))))
    except OSError as error:
        where = error.filename or f"{options.host}:{options.port}"
        return _print_error(f"simulate: {where} cannot be used ({refusal_of(error)}): choose another", WRONG)
    except ValueError as error:
        return _print_error(f"simulate: {error}", WRONG)


def _status(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote
    from oneweb_bridge.cli.console_address import look_for_console

    masks = Masks()
    config = load_config(options, masks)
    if options.open:
        console = look_for_console(config)
        if not console.is_answering:
            return _print_error(f"status: {console.sentence}", FAILED)
        print(console.address)
        return DONE
    return DONE if asyncio.run(remote.status(config, masked_print(masks), as_json=options.json)) else FAILED


def _poll(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote

    masks = Masks()
    config = load_config(options, masks)
    requests: list[remote.CommandToSend] = [(call, "poll", {}) for call in options.calls]
    return DONE if asyncio.run(remote.command(config, requests, masked_print(masks))) else FAILED


def _set(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote
    from oneweb_bridge.commands.decode import SWITCHES

    masks = Masks()
    config = load_config(options, masks)
    changes: dict[str, object] = {}
    if options.interval is not None:
        changes["interval"] = None if options.interval == FILE else options.interval
    if options.enable or options.disable or options.enabled:
        is_enabled = bool(options.enable) if options.enabled is None else SWITCHES.get(options.enabled)
        # None, for `file`, takes the file's setting again.
        changes["enabled"] = is_enabled
    if not changes:
        return _print_error("set: expected --enable, --disable, --enabled file or --interval", WRONG)
    return (
        DONE if asyncio.run(remote.command(config, [(options.call, "set", changes)], masked_print(masks))) else FAILED
    )


def _history(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import history
    from oneweb_bridge.store.places import place_of
    from oneweb_bridge.trends.task import trends_place_of

    config = load_config(options, Masks())
    require_postgres(config)
    form: history.Form = "csv" if options.csv else "json" if options.json else "table"
    given = ("imei", "product", "report", "since", "until", "every")
    query = history.HistoryQuery(**{name: getattr(options, name) for name in given})
    try:
        if options.plot is not None:
            return _plot(config, query, Path(options.plot) if options.plot else None)
        with show_percent("of the span read", shown=sys.stderr.isatty() and not sys.stdout.isatty()) as progress:
            place = place_of(config)
            has_any = history.print_history((place, trends_place_of(config, place)), query, form, print, progress)
    except ValueError as error:
        return _print_error(f"history: {error}", WRONG)
    except (StoreUnavailable, StoreDamaged) as error:
        return _print_error(f"history: the database or the trends cannot be read ({error}): try again", FAILED)
    if has_any:
        return DONE
    return _print_error(f"history: nothing is kept of {query.imei or query.product} in this span", DONE)


def _plot(config: Config, query: Any, file: Path | None) -> int:
    from oneweb_bridge.cli import plot

    try:
        is_drawn = plot.plot_history(config, query, file, min(200, shutil.get_terminal_size().columns), print)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _print_error(f"history: {file} cannot be written ({refusal_of(error)}): name another file", FAILED)
    if not is_drawn and file is not None:
        return _print_error(f"history: {NOTHING_TO_DRAW}, so {file} was not written", FAILED)
    if not is_drawn:
        print(NOTHING_TO_DRAW)
    return DONE


def _backup(options: argparse.Namespace) -> int:
    from oneweb_bridge.store import backup
    from oneweb_bridge.store.places import place_of
    from oneweb_bridge.trends.task import beside, trends_place_of

    config, is_terminal = load_config(options, Masks()), sys.stderr.isatty()
    place = place_of(config)
    trends = trends_place_of(config, place)
    if not isinstance(place, Path) or not isinstance(trends, Path):
        return _print_error(
            "backup: the state is in PostgreSQL (state.url): use pg_dump for the whole database", FAILED
        )

    def progress(done: int, of: int) -> None:
        if is_terminal:
            print(f"\r{100 * done // max(of, 1)} % of the file copied", end="", file=sys.stderr, flush=True)

    sources = [backup.Source(place, options.file)]
    try:
        has_trends = is_there(trends)
    except OSError as error:
        return _print_error(f"backup: {trends} cannot be read ({refusal_of(error)}): check trends.path", FAILED)
    if has_trends:
        sources.append(backup.Source(trends, beside(options.file), is_marked=False))
    try:
        sizes = backup.write_backups(sources, force=options.force, progress=progress)
    except backup.BackupError as error:
        return _print_error(f"backup: {error}", FAILED)
    finally:
        if is_terminal:
            print(file=sys.stderr)
    for source, size in zip(sources, sizes, strict=True):
        # The file name may hold bytes that are no text.
        print(f"{os.fsencode(source.target).decode(errors='replace')}: {size / 1e6:.1f} MB")
    return DONE


def _migrate(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import migrate

    masks = Masks()
    try:
        migrate.run(options, masks)
    except StoreError as error:
        return _print_error(masks.mask_text(f"migrate: {error}"), FAILED)
    except KeyboardInterrupt:
        return _print_error("migrate: interrupted, and nothing was moved", FAILED)
    return DONE


def _config(options: argparse.Namespace) -> int:
    print(dump_yaml(load(options.config, os.environ)), end="")
    return DONE


def _print_document(name: str, options: argparse.Namespace) -> int:
    from oneweb_bridge.contract import asyncapi, openapi

    document = {"asyncapi": asyncapi.document, "openapi": openapi.document}[name]
    print(yaml_text(document(load(options.config, os.environ), __version__)), end="")
    return DONE
