"""`oneweb-bridge explore`: reads each API call as the bridge will, and says what to change in bridge.yaml.

It may know `api`, `decode`, `config` and how `polling` asks; it writes no file but those of `--save` and
`--write`, and its report beside the database for the console.
The requests are in `explorer` and `reading`, what the answers mean in `findings`, the output in `report`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from oneweb_bridge.api.errors import ApiError, Unauthorized
from oneweb_bridge.api.headers import Challenge, origin
from oneweb_bridge.config.file_reader import merge_trees
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import require_credentials
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.write import reading_hash
from oneweb_bridge.encoding import count_text, one_line
from oneweb_bridge.explore import keeping, recording, report
from oneweb_bridge.explore.client import ExploreApi, open_explore_api
from oneweb_bridge.explore.evidence import Tree
from oneweb_bridge.explore.explorer import Explorer, ExploreResult
from oneweb_bridge.explore.recording import RecordingError
from oneweb_bridge.explore.writing import BACKUP_SUFFIX, WriteRefused, check_writable, write_changes
from oneweb_bridge.model.exploration import Exploration

__all__ = ["RecordingError", "WriteRefused", "explore"]

Write = Callable[[str], None]
_TOKEN_ADDRESSES = ("token_url", "token_endpoint", "token_uri", "authorization_uri")
"""Parameters of a challenge in which some servers say where they give tokens."""


async def explore(
    config: Config,
    write: Write,
    save: Path | None = None,
    masks: Masks | None = None,
    *,
    source: Path | None = None,
    file: Path | None = None,
    database: Path | None = None,
) -> bool:
    """Writes what is different. True when every enabled call is read in full with the file as it is in the end.

    `source` is a folder that takes the place of the API, `file` is the configuration file to change. Beside `database`
    a report is kept for the console. `masks` gets the tokens of the API, so that `write` can mask them. Raises
    ConfigError without credentials, RecordingError, WriteRefused and OSError.
    """
    masks = masks or Masks()
    if file is not None:
        check_writable(file)
    if source is not None:
        opened = recording.open_recorded_api(config.api, masks, recording.load(source))
    else:
        require_credentials(config)
        opened = open_explore_api(config.api, masks)
    async with opened as api:
        api.is_recording = save is not None and source is None
        printed: list[str] = []
        changes = await _sign_in(api, config, _tee(write, printed))
        sign_in = " ".join(" ".join(printed).split()).removeprefix("sign-in ")
        if changes is None:
            _keep_for_console(write, database, keeping.refused(sign_in, api.now(), masks, reading_hash(config)))
            return False
        api.freeze()
        result = await Explorer(api, config, changes).explore(_show_progress)
        _show_progress("")
        for line in report.lines(result, (api.requests, api.tried)):
            write(line)
        if save is not None:
            _save(result, api, save, write, masks)
    name = "bridge.yaml" if file is None else file.name
    written = file is not None and _write_file(file, result, write)
    final = reading_hash(result.config if written else config)
    kept = keeping.exploration_of(result, sign_in, masks, written=written, file=name, configuration=final)
    _keep_for_console(write, database, kept)
    for line in report.last_line(result, written=written, file=name):
        write(line)
    return report.is_good(result, written=written)


def _show_progress(text: str) -> None:
    """Writes over the last line of a terminal; nothing in a pipe."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _write_entry(write: Write, name: str, text: str) -> None:
    for line in report.entry(name, text):
        write(line)


# ── signing in ─────────────────────────────────────────────────────────────────────────────────


async def _sign_in(api: ExploreApi, config: Config, write: Write) -> Tree | None:
    """The change that it took to be accepted, {} for none; None when the credentials are not accepted.

    Where the sign-in check is refused, the calls for data are tried: some APIs have no such check, or elsewhere.
    """
    styles: list[tuple[Any, Tree]] = [(config.api, {})]
    if config.api.auth.style == "basic":
        headers = replace(config.api, auth=replace(config.api.auth, style="headers"))
        styles.append((headers, {"api": {"auth": {"style": "headers"}}}))
    for settings, changes in styles:
        api.reconfigure(settings)
        style = settings.auth.style
        try:
            await api.hello()
        except Unauthorized as error:
            _write_entry(write, "sign-in", f"refused with auth.style {style}: {error}")
            if (path := await _accepting_path(api, config)) is not None:
                text = f"but {path} accepts the credentials (auth.style {style}): it serves as the sign-in check"
                _write_entry(write, "", text)
                hello: Tree = {"api": {"hello": {"path": path}}}
                both: Tree = merge_trees(changes, hello)
                return both
            continue
        except ApiError as error:
            advice = "Check api.base_url, api.hello.path, api.proxy and api.ca_file"
            _write_entry(write, "sign-in", f"failed: {error}. {advice}")
            break
        _write_entry(write, "sign-in", f"{settings.base_url} accepts the credentials (auth.style {style})")
        return changes
    _write_entry(write, "", _advice_after_refusal(api, config))
    return None


async def _accepting_path(api: ExploreApi, config: Config) -> str | None:
    """The path of an enabled call for data that is answered although the sign-in check is not."""
    for id in ("user_terminals", "products"):
        call = config.polling[id]
        try:
            await api.get(call.path, {call.page.limit_param: "1"})
        except ApiError:
            continue
        return call.path
    return None


def _advice_after_refusal(api: ExploreApi, config: Config) -> str:
    offered: dict[str, Challenge] = {}
    for challenge in api.challenges:
        offered.setdefault(challenge.scheme, challenge)
    advice = "Check api.client_id, api.client_secret and api.auth.style"
    if "bearer" in offered and "basic" not in offered and config.api.auth.style != "oauth2_client_credentials":
        where = _token_address(offered["bearer"]) or "the address where OneWeb gives tokens"
        advice = f"The API wants a token: set api.auth.style: oauth2_client_credentials and api.auth.token_url: {where}"
    elif offered:
        schemes = " or ".join(scheme.capitalize() for scheme in offered)
        advice += f" (the API asks for {one_line(schemes)})"
    return f"not signed in, so that no call was read and nothing is known of them. {advice}"


def _token_address(challenge: Challenge) -> str:
    """The address where the API says that it gives tokens; empty where it says none."""
    given = (challenge.parameters.get(name, "") for name in _TOKEN_ADDRESSES)
    return next((address for address in given if _is_address(address)), "")


def _is_address(text: str) -> bool:
    """Whether a text may stand in `api.auth.token_url`: a whole address, or a path."""
    try:
        scheme, _, host, _ = origin(text)
    except ValueError:
        return False
    is_one_word = text.isprintable() and " " not in text
    return is_one_word and (text.startswith("/") if not scheme else scheme in ("http", "https") and host != "")


# ── what is left behind ────────────────────────────────────────────────────────────────────────


def _save(result: ExploreResult, api: ExploreApi, directory: Path, write: Write, masks: Masks) -> None:
    samples = {call.call.id: call.evidence.reply.body for call in result.calls if call.evidence.reply.outcome == "ok"}
    count = recording.save(
        directory, recording.Explored(api.exchanges, samples, api.url("/").rstrip("/"), result.now), masks
    )
    advice = "ids, names and positions are replaced; look at them before you send them"
    write("")
    text = (
        f"{count_text(count, 'sample')} in {directory}, and {recording.FILE} for `explore --from {directory}`: {advice}"
    )
    _write_entry(write, "saved", text)


def _tee(write: Write, printed: list[str]) -> Write:
    """Writes each line, and notes it."""

    def write_and_note(line: str) -> None:
        printed.append(line)
        write(line)

    return write_and_note


def _keep_for_console(write: Write, database: Path | None, exploration: Exploration) -> None:
    """Keeps it where there is a database, and says so; the answers of a folder leave nothing behind."""
    if database is not None:
        write("")
        _write_entry(write, "kept", keeping.keep(database, exploration))


def _write_file(file: Path, result: ExploreResult, write: Write) -> bool:
    """Puts the changes into the file. True where it has them now."""
    difference = write_changes(file, result.changes)
    write("")
    for line in difference:
        write(line)
    if difference:
        _write_entry(write, "written", f"{file}; what it was is in {file.resolve()}{BACKUP_SUFFIX}")
    return bool(result.changes)
