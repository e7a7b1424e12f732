"""The table of faults tells of each that is tried, and of no other."""

from tests.chaos import table


def test_the_table_has_every_fault() -> None:
    """`make faults` would add no row and take none away."""
    rows = table.read()
    assert {fault for fault, _ in rows} == set(table.faults())
    assert table.FILE.read_text() == table.text(rows, table.faults())


def test_nothing_in_it_is_broken() -> None:
    """What it says holds, held when the table was made."""
    assert [fault for (fault, _), (_, tried) in table.read().items() if "broken" in tried] == []
