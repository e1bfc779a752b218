"""The real command with a real mosquitto: no statement of the specification fails, and the documentation says so."""

from pathlib import Path

from tests.sparkplug import scenarios
from tests.sparkplug.checker import check, failures
from tests.sparkplug.facts import Facts
from tests.sparkplug.table import judge, lines_of, table_in

PAGE = Path(__file__).parent.parent.parent / "docs" / "sparkplug.md"


async def test_statements_hold_on_the_wire(tmp_path: Path) -> None:
    """No statement fails, `seq` wraps, there are several Edge Nodes; the page's table is the current one."""
    traces = await scenarios.tell_all(tmp_path)
    assert [failures(check(trace)) for trace in traces] == [{}] * 3
    # Whatever comes between the answers may get the number; an NBIRTH, which begins with 0 anyway, does not count.
    counted = Facts(traces[0]).of("NDATA", "DDATA", "DBIRTH", "DDEATH")
    seqs = [message.payload.seq for message in counted if message.payload]
    assert {0, 255} <= set(seqs)
    assert len(Facts(traces[2]).nodes) >= 3
    assert table_in(PAGE.read_text()) == lines_of(judge(traces)), "python -m tests.sparkplug.table --write this page"
