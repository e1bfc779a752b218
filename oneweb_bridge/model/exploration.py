"""The result of one run of `oneweb-bridge explore`, as it is kept for the console: the printed sentences, no secrets.

A sentence may quote what the API answered to a refused request, and so an id.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CallOutcome = Literal["whole", "partial", "not_reached", "skipped"]


class ExploredCall(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one call."""

    call: str
    enabled: bool
    outcome: Annotated[
        CallOutcome,
        Meta(
            description=(
                "whole: reached and read in full; partial: reached; not_reached; skipped: not asked, "
                "because the request is a POST"
            )
        ),
    ]
    summary: Annotated[str, Meta(description="what the bridge would publish, or why the call is not reached")]
    problems: Annotated[list[str], Meta(description="what is not read in full, and what to do")]
    differs: Annotated[list[str], Meta(description="where the API differs from the configuration")]


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run. Texts are those that the command printed."""

    time: Annotated[str, Meta(description="when it ended, by the API's clock")]
    signed_in: bool
    sign_in: Annotated[str, Meta(description="how signing in went")]
    calls: list[ExploredCall]
    general: Annotated[list[str], Meta(description="what concerns all calls")]
    changes: Annotated[str, Meta(description="the lines of bridge.yaml to change, empty where there are none")]
    written: Annotated[bool, Meta(description="whether --write has put the lines into the file")]
    conclusion: Annotated[str, Meta(description="the last line; before it, whether the configuration is another now")]
    configuration: Annotated[str, Meta(description="a hash of the keys that decide how the API is read")] = ""
