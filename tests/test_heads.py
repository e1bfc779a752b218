"""Who publishes below a base topic: this database, nobody, or another bridge."""

from typing import Any

import pytest

from oneweb_bridge.model.heads import Identity, Place, foreign_sentence, owner_of, read_head

HERE = Place("oneweb", "new")
IDENTITY = Identity(
    journal_id="j2",
    earlier=(("j1", 5),),
    places=(Place("oneweb", "old"), Place("other", "else"), Place("oneweb", "new")),
)


@pytest.mark.parametrize(
    ("head", "owner"),
    [
        (None, "nobody"),
        ({}, "nobody"),
        ({"journal": "x"}, "nobody"),
        ({"journal": "j2", "instance": "new"}, "this"),
        ({"journal": "x", "instance": "new"}, "this"),
        ({"journal": "j2", "instance": "old"}, "this"),
        ({"journal": "j1", "instance": "old"}, "this"),
        ({"journal": "x", "instance": "old"}, "another"),
        ({"journal": "j2", "instance": "else"}, "another"),
        ({"journal": "j2", "instance": "stranger"}, "another"),
        ({"journal": "j2"}, "another"),
        ({"journal": "j2", "instance": ["new"]}, "another"),
        ({"journal": ["j2"], "instance": {}}, "another"),
    ],
)
def test_owner_is_told_by_journal_and_instance(head: dict[str, Any] | None, owner: str) -> None:
    """A former name counts only with a journal of this database, and only below the base where it was used."""
    assert owner_of(head, HERE, IDENTITY) == owner


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 10_000, b'"x"'])
def test_payload_that_is_no_object_is_no_head(payload: bytes) -> None:
    """Whatever somebody put there is as if nothing was."""
    assert read_head(payload) is None


def test_old_bases_are_told_once() -> None:
    """Each base other than the one in use, once, however many names there were."""
    places = (*IDENTITY.places, Place("other", "new"))
    assert Identity(places=places).old_bases("oneweb") == ["other"]


def test_foreign_sentence_says_what_to_do() -> None:
    """It names the topic, both instances, and both ways out."""
    sentence = foreign_sentence({"instance": "x" * 999}, "oneweb/bridge/head", HERE)
    assert len(sentence) < 300
    assert "mqtt.base_topic" in sentence
    assert "clear that topic" in sentence
