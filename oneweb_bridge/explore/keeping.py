"""Keeps what an exploration found for the console's set-up page: the printed sentences, secrets masked."""

from collections.abc import Callable
from pathlib import Path

from oneweb_bridge.config.masks import Masks
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.explore import report
from oneweb_bridge.explore.explorer import ExploreResult
from oneweb_bridge.explore.reaching import CallResult
from oneweb_bridge.files import refusal_of
from oneweb_bridge.model.exploration import CallOutcome, Exploration, ExploredCall
from oneweb_bridge.store.exploration_file import write_exploration

Mask = Callable[[str], str]


def refused(sign_in: str, now: int, masks: Masks, configuration: str = "") -> Exploration:
    """The exploration that ended with the sign-in."""
    text = masks.mask_text(sign_in)
    return Exploration(
        time=rfc3339(now),
        signed_in=False,
        sign_in=text,
        calls=[],
        general=[],
        changes="",
        written=False,
        conclusion="Not signed in, so that no call was read.",
        configuration=configuration,
    )


def exploration_of(
    result: ExploreResult,
    sign_in: str,
    masks: Masks,
    *,
    written: bool,
    file: str = "bridge.yaml",
    configuration: str = "",
) -> Exploration:
    """What is kept of a result. `configuration` is the hash of the one that the file has in the end."""
    mask = masks.mask_text
    return Exploration(
        time=rfc3339(result.now),
        signed_in=True,
        sign_in=mask(sign_in),
        calls=[_call(call, result.now, mask) for call in result.calls],
        general=[mask(finding.text) for finding in result.findings],
        changes=mask(report.snippet(result.changes)) if result.changes else "",
        written=written,
        conclusion=mask(" ".join(line for line in report.last_line(result, written=written, file=file) if line)),
        configuration=configuration,
    )


def _call(result: CallResult, now: int, mask: Mask) -> ExploredCall:
    return ExploredCall(
        call=result.call.id,
        enabled=result.call.enabled,
        outcome=_outcome(result),
        summary=mask(report.describe_call(result, now)),
        problems=[mask(text) for text in report.unexpected(result)],
        differs=[mask(finding.text) for finding in result.findings],
    )


def _outcome(result: CallResult) -> CallOutcome:
    if result.reading.outcome == "skipped":
        return "skipped"
    if result.reading.outcome != "ok":
        return "not_reached"
    return "whole" if result.is_whole else "partial"


def keep(database: Path, exploration: Exploration) -> str:
    """Writes it beside the database. Returns the sentence that says where, or why not."""
    try:
        path = write_exploration(database, exploration)
    except OSError as error:
        return f"not for the console: {database.parent} cannot be written ({refusal_of(error)})"
    return f"{path}, for the set-up page of the console"
