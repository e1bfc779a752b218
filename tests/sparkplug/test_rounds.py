"""After kills, restarts and cuts a host knows everything that the API has shown."""

from pathlib import Path

from tests.sparkplug import rounds


async def test_host_knows_all_after_faults(tmp_path: Path) -> None:
    """Live tags are the simulator's truth; history has every sample, none lost, none invented; nothing goes back."""
    assert await rounds.play(tmp_path, seed=7, rounds=5) == []
