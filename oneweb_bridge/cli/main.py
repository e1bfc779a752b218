"""The command `oneweb-bridge`. What a user can cause is one sentence and an exit code, never a traceback."""

import argparse
import asyncio
import contextlib
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from oneweb_bridge import __version__
from oneweb_bridge.cli import logs
from oneweb_bridge.cli.progress import show_percent
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks, secrets_of
from oneweb_bridge.config.read import load, require_credentials
from oneweb_bridge.config.schema import Config, Log
from oneweb_bridge.config.units import parse_duration
from oneweb_bridge.config.write import dump_yaml, yaml_text
from oneweb_bridge.files import refusal_of
from oneweb_bridge.store.errors import StoreDamaged, StoreError, StoreUnavailable

DONE, FAILED, WRONG = 0, 1, 2
CANCEL_AGAIN_S = 4.0
"""Seconds after a signal to stop, and again after each of them, until whatever still runs is told once more."""
THREAD_SWITCH_S = 0.0005
MAX_TERMINALS = 400_000
"""The largest fleet that the simulator plays."""

_log = logging.getLogger("oneweb_bridge.cli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What others read, and names from anywhere, must not depend on a locale; argv may hold bytes that are no text.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        code: int = options.act(options)
    except ConfigError as error:
        return _refuse(str(error), WRONG)
    except StoreError as error:
        return _refuse(str(error), FAILED)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return DONE
    return code


def _refuse(sentence: str, code: int) -> int:
    print(f"oneweb-bridge: {sentence}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="oneweb-bridge", description="OneWeb's enterprise API on MQTT.")
    top.add_argument("--version", action="version", version=f"oneweb-bridge {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "run", _run, "runs the bridge until SIGTERM or SIGINT")
    _add_demo(commands)
    _add(commands, "check", _check, "validates the configuration, signs in, reaches the broker")
    explore = _add(commands, "explore", _explore, "tries each API call, read-only, and prints what to change")
    explore.add_argument(
        "--save", type=Path, metavar="DIR", help="writes a sample of each answer, ids and names replaced"
    )
    _add_simulate(commands)
    status = _add(commands, "status", _status, "prints the table of all calls")
    status.add_argument("--json", action="store_true", help="as JSON, for scripts")
    _add_poll_and_set(commands)
    _add_history(commands)
    backup = _add(commands, "backup", _backup, "makes a consistent copy of the database, also while the bridge runs")
    backup.add_argument("file", type=Path, metavar="FILE", help="the copy; must not exist without --force")
    backup.add_argument("--force", action="store_true", help="replaces FILE when it exists")
    _add(commands, "config", _config, "prints the effective configuration, secrets masked")
    _add(commands, "asyncapi", _asyncapi, "prints the AsyncAPI 3.0 document of the topics")
    return top


def _add(
    commands: Any, name: str, act: Callable[[argparse.Namespace], int], about: str, *, configured: bool = True
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    if configured:
        command.add_argument("-c", "--config", type=Path, metavar="FILE", help="default: ./bridge.yaml if there is one")
    command.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    command.add_argument("--log-format", choices=("text", "json"))
    command.set_defaults(act=act)
    return command


def _add_demo(commands: Any) -> None:
    demo = _add(commands, "demo", _demo, "runs simulator, broker and bridge, without configuration", configured=False)
    demo.add_argument("--terminals", type=_terminals, default=25, metavar="N", help="how many (default: 25)")
    demo.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="X",
        help="how fast simulated time passes; the bridge's clock stays as it is",
    )
    demo.add_argument("--duration", type=_seconds, metavar="D", help="for example 60s; default: until Ctrl-C")


def _add_simulate(commands: Any) -> None:
    from oneweb_bridge.simulator import Options, Shape

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
        help=f"plays a variant of the API; NAME is one of {', '.join(Shape.__struct_fields__)}",
    )


def _add_poll_and_set(commands: Any) -> None:
    from oneweb_bridge.decode.catalogue import CALLS

    poll = _add(commands, "poll", _poll, "polls calls now, and waits for the result")
    poll.add_argument("calls", nargs="+", metavar="CALL", choices=[*CALLS, "all"], help=", ".join(CALLS) + ", or all")
    change = _add(commands, "set", _set, "enables, disables or changes the interval of a call, also after a restart")
    change.add_argument("call", metavar="CALL", choices=[*CALLS, "all"], help=", ".join(CALLS) + ", or all")
    switch = change.add_mutually_exclusive_group()
    switch.add_argument("--enable", action="store_true", default=None, help="polls the call at its interval")
    switch.add_argument("--disable", action="store_true", default=None, help="polls the call only on command")
    change.add_argument("--interval", type=_interval, metavar="D", help="from 10s to 7d, for example 5m")


def _add_history(commands: Any) -> None:
    history = _add(commands, "history", _history, "prints samples and events from the journal and the trends")
    whose = history.add_mutually_exclusive_group(required=True)
    whose.add_argument("--imei", metavar="I")
    whose.add_argument("--product", metavar="P")
    history.add_argument("--report", metavar="R", help="only this report, for example signal_quality")
    history.add_argument("--since", default="24h", metavar="T", help="a time, or a duration before now (default 24h)")
    history.add_argument("--until", metavar="T", help="a time, or a duration before now")
    history.add_argument("--every", metavar="D", help="min, mean, max and count of each interval, for example 1h")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true")
    form.add_argument("--json", action="store_true", help="one JSON object per line")


def _terminals(text: str) -> int:
    if not text.isdecimal() or len(text) > 6 or int(text) > MAX_TERMINALS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {MAX_TERMINALS}, got {text[:40]!r}")
    return int(text)


def _speed(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) <= 1e6:
            return number
    raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1000000, got {text[:40]!r}")


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _interval(text: str) -> str:
    from oneweb_bridge.commands.decode import parse_interval

    try:
        parse_interval(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("interval: ")) from None
    return text


def _loaded(options: argparse.Namespace, masks: Masks) -> Config:
    """The configuration; the log speaks as it says, and hides its secrets and all that `masks` knew before."""
    found = load(options.config, os.environ)
    masks.add_secrets(*secrets_of(found.api), found.mqtt.password, found.console.token)
    logs.set_up(_log_settings(options, found.log), masks)
    return found


def _printing(masks: Masks) -> Callable[[str], None]:
    """Prints lines without secrets: they may quote what the API or the broker has said."""
    return lambda line: print(masks.mask_text(line))


def _log_settings(options: argparse.Namespace, settings: Log) -> Log:
    return Log(level=options.log_level or settings.level, format=options.log_format or settings.format)


def _until_signalled(work: Coroutine[Any, Any, None], on_hangup: Callable[[], None] | None = None) -> int:
    """Runs until the work ends or a signal asks to stop; then it has its time to say goodbye."""

    async def supervised() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def insist() -> None:
            # On Python 3.11 a task group forgets that it was cancelled when one of its tasks fails just then.
            for each in asyncio.all_tasks(loop):
                each.cancel()
            loop.call_later(CANCEL_AGAIN_S, insist)

        def stop() -> None:
            task.cancel()
            loop.call_later(CANCEL_AGAIN_S, insist)

        if on_hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    tune_interpreter()
    asyncio.run(supervised())
    return DONE


def tune_interpreter() -> None:
    """Makes the event loop wait less: for other threads, and for the search for garbage in what stays anyway."""
    # A thread that waits for the interpreter waits this long, and every answer of SQLite is such a wait.
    sys.setswitchinterval(THREAD_SWITCH_S)
    gc.collect()
    gc.freeze()


# ── the commands ───────────────────────────────────────────────────────────────────────────────


def _run(options: argparse.Namespace) -> int:
    from oneweb_bridge import app

    masks = Masks()
    found = _loaded(options, masks)
    require_credentials(found)
    reloads: asyncio.Queue[Config] = asyncio.Queue()

    def read_again() -> None:
        try:
            again = _loaded(options, masks)
            require_credentials(again)
        except ConfigError as error:
            _log.error("%s; the configuration stays as it was", error)
            return
        reloads.put_nowait(again)

    try:
        return _until_signalled(app.run(found, masks=masks, reloads=reloads), read_again)
    except* StoreError as group:
        return_code = _refuse(str(group.exceptions[0]), FAILED)
    except* StoreDamaged:
        return_code = _refuse(f"{found.state.path} is damaged: move it away, or put a backup in its place", FAILED)
    return return_code


def _demo(options: argparse.Namespace) -> int:
    from oneweb_bridge.demo import demo

    logs.set_up(_log_settings(options, Log(level="warning")), Masks())
    try:
        return _until_signalled(demo.run_for(options.duration, options.terminals, options.speed))
    except OSError as error:
        return _refuse(f"demo: {error.filename or 'its temporary files'}: {refusal_of(error)}", FAILED)


def _check(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import check as checking

    masks = Masks()
    found = _loaded(options, masks)
    return DONE if asyncio.run(checking.check(found, _printing(masks), masks)) else FAILED


def _explore(options: argparse.Namespace) -> int:
    from oneweb_bridge import explore

    masks = Masks()
    found = _loaded(options, masks)
    try:
        return DONE if asyncio.run(explore.explore(found, _printing(masks), options.save, masks)) else FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        return _refuse(f"explore: {error.filename or options.save or ''}: {refusal_of(error)}", FAILED)


def _simulate(options: argparse.Namespace) -> int:
    from oneweb_bridge import simulator

    logs.set_up(_log_settings(options, Log()), Masks())
    try:
        return _until_signalled(simulator.run(_simulator_options(options)))
    except (ValueError, msgspec.ValidationError, OSError) as error:
        return _refuse(f"simulate: {error}", WRONG)


def _simulator_options(options: argparse.Namespace) -> Any:
    from oneweb_bridge.simulator import Options, Shape

    given = {
        field.name: getattr(options, field.name) for field in msgspec.structs.fields(Options) if field.name != "shape"
    }
    pairs = [pair.partition("=") for pair in options.shape]
    for name, sign, _ in pairs:
        if not sign or name not in Shape.__struct_fields__:
            raise ValueError(f"--shape: expected NAME=VALUE, and '{name[:40]}' is no NAME that --help lists")
    shape = msgspec.convert({name: value for name, _, value in pairs}, Shape, strict=False)
    return msgspec.structs.replace(msgspec.convert(given, Options, strict=False), shape=shape)


def _status(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote

    masks = Masks()
    found = _loaded(options, masks)
    return DONE if asyncio.run(remote.status(found, _printing(masks), as_json=options.json)) else FAILED


def _poll(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote

    masks = Masks()
    found = _loaded(options, masks)
    asked: list[remote.CommandToSend] = [(call, "poll", {}) for call in options.calls]
    return DONE if asyncio.run(remote.command(found, asked, _printing(masks))) else FAILED


def _set(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import remote

    masks = Masks()
    found = _loaded(options, masks)
    changes: dict[str, object] = {} if options.interval is None else {"interval": options.interval}
    if options.enable or options.disable:
        changes["enabled"] = bool(options.enable)
    if not changes:
        return _refuse("set: expected --enable, --disable or --interval", WRONG)
    return DONE if asyncio.run(remote.command(found, [(options.call, "set", changes)], _printing(masks))) else FAILED


def _history(options: argparse.Namespace) -> int:
    from oneweb_bridge.cli import history as past
    from oneweb_bridge.trends.task import path_of

    found = _loaded(options, Masks())
    form: past.Form = "csv" if options.csv else "json" if options.json else "table"
    given = ("imei", "product", "report", "since", "until", "every")
    query = past.HistoryQuery(**{name: getattr(options, name) for name in given})
    try:
        with show_percent("of the span read", shown=sys.stderr.isatty() and not sys.stdout.isatty()) as progress:
            past.print_history((Path(found.state.path), path_of(found)), query, form, print, progress)
    except ValueError as error:
        return _refuse(f"history: {error}", WRONG)
    except (StoreUnavailable, StoreDamaged) as error:
        return _refuse(f"history: the database or the trends cannot be read ({error}): try again", FAILED)
    return DONE


def _backup(options: argparse.Namespace) -> int:
    from oneweb_bridge.store import backup

    found, shown = _loaded(options, Masks()), sys.stderr.isatty()

    def progress(done: int, of: int) -> None:
        if shown:
            print(f"\r{100 * done // max(of, 1)} % of the database copied", end="", file=sys.stderr, flush=True)

    try:
        size = backup.write_backup(Path(found.state.path), options.file, force=options.force, progress=progress)
    except backup.BackupError as error:
        return _refuse(f"backup: {error}", FAILED)
    finally:
        if shown:
            print(file=sys.stderr)
    # A name that is not text is shown as far as it is.
    print(f"{os.fsencode(options.file).decode(errors='replace')}: {size / 1e6:.1f} MB")
    return DONE


def _config(options: argparse.Namespace) -> int:
    print(dump_yaml(load(options.config, os.environ)), end="")
    return DONE


def _asyncapi(options: argparse.Namespace) -> int:
    from oneweb_bridge.contract import asyncapi

    print(yaml_text(asyncapi.document(load(options.config, os.environ), __version__)), end="")
    return DONE
