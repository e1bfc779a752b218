"""What hides secrets: every form in which one may be written, and nothing forgotten."""

import base64
import html
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.cli.loading import add_secrets
from oneweb_bridge.config.masks import MAX_TEMPORARY, Masks, basic_credentials, secrets_of
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Api, Secret

SPECIAL = [
    "s3cret-word",
    'qu"ote\\back',
    "line\nend\ttab",
    "pässwörd-ünï",
    "sl/ash+plus=eq&amp",
    "<b>'html'</b>",
    "  spaced  ",
]
WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON of this bridge": lambda text: msgspec.json.encode(text).decode(),
    "JSON in JSON": lambda text: json.dumps({"a": text}),
    "an address": lambda text: f"/x/{quote(text, safe='')}",
    "a path": quote,
    "lower-case escapes": lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
    "a form": lambda text: urlencode({"client_secret": text}),
    "plus signs": quote_plus,
    "HTML": html.escape,
    "Python's words": repr,
    "ASCII": ascii,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}


def masks_of(*secrets: str) -> Masks:
    masks = Masks()
    masks.add_secrets(*secrets)
    return masks


@pytest.mark.parametrize("secret", SPECIAL)
@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_form_of_a_secret_is_hidden(way: str, secret: str) -> None:
    """However a secret is written, in text and in bytes, nothing of it is left."""
    written = WAYS[way](secret)
    masked = masks_of(secret).mask_text(f"before {written} after")

    assert "***" in masked
    assert written.strip('"').strip("'") not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert masks_of(secret).mask_bytes(f"before {written} after".encode()) == masked.encode()


@given(st.lists(st.text(min_size=4, max_size=12), max_size=4), st.text(max_size=40))
def test_no_learnt_secret_survives(secrets: list[str], around: str) -> None:
    """Whatever the secrets are and wherever they stand, none is in the text afterwards, but for stars themselves."""
    masks = masks_of(*secrets)
    for secret in secrets:
        masked = masks.mask_text(around + secret + around)
        assert secret not in masked or set(secret) <= set("*") or secret in "***"


def test_former_secrets_stay_hidden() -> None:
    """What was a secret before a rotation is hidden afterwards too."""
    masks = masks_of("former-secret")
    masks.add_secrets("newer-secret")

    assert masks.mask_text("former-secret newer-secret") == "*** ***"


def test_tokens_of_a_year_take_no_room() -> None:
    """Tokens come every hour and pass: the newest are hidden, and what is remembered is bounded. Lasting ones stay."""
    masks = masks_of("lasting-secret")
    for number in range(MAX_TEMPORARY + 5):
        masks.add_secrets(f"token-number-{number:04}-x", temporary=True)

    assert masks.mask_text("token-number-0024-x lasting-secret") == "*** ***"
    assert len(masks._temporary) == MAX_TEMPORARY


def test_credentials_are_hidden_as_they_are_sent() -> None:
    """Of the API's settings the id, the secret, both together as HTTP Basic sends them, and the proxy's password."""
    api = Api(
        client_id=Secret("the-client"),
        client_secret=Secret("the-s3cret"),
        proxy=Secret("http://me:pr%2Fxy-pass@proxy.example.net:3128"),
    )
    masks = masks_of(*secrets_of(api))
    for secret in (
        "the-s3cret",
        basic_credentials("the-client", "the-s3cret"),
        "pr/xy-pass",
        "pr%2Fxy-pass",
        basic_credentials("me", "pr/xy-pass"),
    ):
        assert masks.mask_text(f"a {secret} b") == "a *** b", secret


def test_short_secrets_and_none_hide_nothing() -> None:
    """A password of a letter or none is not looked for, or every line would be stars."""
    masks = masks_of("a", "", "abc")
    masks.add_secrets(None)

    assert masks.mask_text("a bad abc") == "a bad abc"


def test_every_secret_of_the_configuration_is_hidden() -> None:
    """Whatever the configuration has as a secret is masked in what commands and the log print; names are none."""
    config = parse(
        """
api: {client_id: app-0001, client_secret: canary-api, proxy: "http://u:canary-proxy@p:1"}
mqtt: {username: user, password: canary-mqtt}
sparkplug: {mqtt: {username: user, password: canary-sparkplug}}
console: {token: canary-console-token}
state: {url: "postgresql://u:canary-state@h/db"}
""",
        {},
    )
    masks, hidden = Masks(), list[str]()
    add_secrets(config, masks)

    def look(struct: Any) -> None:
        for name in struct.__struct_fields__:
            value = getattr(struct, name)
            if isinstance(value, Secret) and name != "username":
                hidden.append(masks.mask_text(f"({value!s})"))
            elif isinstance(value, msgspec.Struct):
                look(value)

    look(config)
    assert hidden == ["(***)"] * 7
