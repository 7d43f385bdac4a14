"""Months are counted over the end of a year."""

from datetime import date

from mistudio_server.metrics.partitions import _months, partition_name


def test_months_cross_the_year_both_ways() -> None:
    assert list(_months(date(2026, 12, 31), -1, 2)) == [
        date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1),
    ]  # fmt: skip
    assert next(_months(date(2027, 1, 31), -1, 0)) == date(2026, 12, 1)


def test_names_sort_by_time() -> None:
    names = [partition_name("training_metrics", month) for month in _months(date(2026, 8, 1), 0, 7)]
    assert names == sorted(names)
    assert names[0] == "training_metrics_y2026m08"
