"""Record: the abilities of a value class, and the arguments that it refuses."""

import copy
import pickle

import pytest

from actors.values.record import Record


class Pair(Record):
    left: int
    right: int = 2


class Secret(Record, kw_only=True):
    user: str = "ann"
    password: str = "hunter2"

    _hidden = frozenset({"password"})


class Checked(Record):
    number: int

    def __post_init__(self):
        if self.number < 0:
            raise ValueError("negative")


class Empty(Record):
    pass


def test_fields_are_given_in_order_or_by_name_or_have_their_default():
    assert (Pair(1).left, Pair(1).right) == (1, 2)
    assert Pair(1, 3) == Pair(1, right=3) == Pair(right=3, left=1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Pair, r"^Pair\(\) needs left$"),
        (lambda: Pair(1, 2, 3), r"^Pair\(\) takes 2 positional arguments, and 3 were given$"),
        (lambda: Pair(1, left=1), r"^Pair\(left=…\) was given twice$"),
        (lambda: Pair(1, middle=1), r"^Pair\(middle=…\) is not one of its fields: left, right$"),
        (lambda: Empty(any=1), r"^Empty\(any=…\) is not one of its fields: none$"),
        (lambda: Secret("ann"), r"^Secret\(\) takes 0 positional arguments, and 1 were given$"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, text):
    with pytest.raises(TypeError, match=text):
        make()


def test_a_class_may_check_its_fields():
    assert Checked(0).number == 0
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)


def test_a_value_cannot_be_changed():
    value = Pair(1)
    with pytest.raises(AttributeError, match="Pair is frozen: left cannot be set"):
        value.left = 5
    with pytest.raises(AttributeError, match="Pair is frozen: left cannot be deleted"):
        del value.left
    assert value == Pair(1)


def test_values_are_equal_by_class_and_fields():
    assert Pair(1) == Pair(1)
    assert hash(Pair(1)) == hash(Pair(1))
    assert Pair(1) != Pair(2)
    assert Empty() == Empty()
    assert Checked(1) != Pair(1)
    assert Pair(1) != (1, 2)


def test_a_value_with_a_field_that_has_no_hash_has_none():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Pair([1]))


def test_a_value_prints_its_fields_but_not_the_hidden_ones():
    assert repr(Pair(1)) == "Pair(left=1, right=2)"
    assert repr(Secret()) == "Secret(user='ann')"
    assert repr(Empty()) == "Empty()"


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_is_equal_and_its_fields_are_not_checked_again(clone, monkeypatch):
    values = [Pair(1, 5), Secret(user="bob"), Checked(1), Empty()]
    monkeypatch.setattr(Checked, "__post_init__", lambda self: pytest.fail("checked again"))
    assert [clone(value) for value in values] == values


def test_a_value_is_matched_by_position():
    match Pair(1, 5):
        case Pair(left, right):
            assert (left, right) == (1, 5)
        case _:
            pytest.fail("no match")
