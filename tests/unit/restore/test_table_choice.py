"""Which rows of which tables, and in what order."""

import pytest

from mistudio_ops.domain.table_choice import Choice, chosen, in_order, training_choices
from mistudio_ops.errors import UsageError


@pytest.mark.parametrize(
    ("tables", "where", "training", "said"),
    [
        ((), None, None, "no table is named"),
        (("a", "b"), "x = 1", None, "--where fits one --table"),
        (("a",), None, "tr_1", "--training brings its own tables"),
        ((), "x = 1", "tr_1", "--training brings its own tables"),
    ],
)
def test_options_that_do_not_fit(tables: tuple[str, ...], where: str | None, training: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        chosen(tables, where, training)


def test_a_table_named_twice_is_one() -> None:
    assert chosen(("a", "b", "a"), None, None) == (Choice("a"), Choice("b"))
    assert chosen(("a", "a"), "x", None) == (Choice("a", "x"),)


def test_an_id_cannot_end_its_own_quotes() -> None:
    for choice in training_choices("x' OR 'a'='a"):
        assert "'x'' OR ''a''=''a'" in (choice.where or "")


def test_what_is_referred_to_comes_first() -> None:
    references = {
        "activations": frozenset({"features"}),
        "features": frozenset({"trainings"}),
        "trainings": frozenset({"datasets", "elsewhere"}),
        "datasets": frozenset({"datasets"}),
    }
    assert in_order(references) == ("datasets", "trainings", "features", "activations")


def test_circles_end() -> None:
    order = in_order({"a": frozenset({"b"}), "b": frozenset({"a"}), "c": frozenset({"a"})})
    assert sorted(order) == ["a", "b", "c"]
    assert order.index("c") > order.index("a")
