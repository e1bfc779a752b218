"""The table of guards: it fits the source, so that `make mutants` tries what it says."""

from pathlib import Path

from tests import mutants


def test_table_of_guards_fits_the_source() -> None:
    """Each guard's text stands exactly once in its file, and its tests are there."""
    assert mutants.misfits() == []


def test_each_guard_selects_tests() -> None:
    """What `-k` asks for is named in the files of its tests: a guard without tests is missed by none."""
    assert mutants.selecting_nothing() == []


def test_guard_that_is_gone_is_told(tmp_path: Path) -> None:
    """A text that the source has no more is named, not passed over."""
    (tmp_path / "oneweb_bridge").mkdir()
    assert len(mutants.misfits(tmp_path)) >= len(mutants.TABLE)


def test_guards_have_names_of_their_own() -> None:
    """No two guards have one name, and each takes something out."""
    assert len({mutant.guard for mutant in mutants.TABLE}) == len(mutants.TABLE)
    assert all(mutant.text != mutant.without for mutant in mutants.TABLE)
