"""The quarantine alone: which statements are held back, and for how long."""

from actors.dispatch.quarantine import Quarantine
from actors.values.requests import Call, Query, Script

POISON = Query("SELECT boom(?)", (1,))
OTHER = Query("SELECT boom(?)", (2,))


def died(quarantine, request, times, now=0.0):
    for _ in range(times):
        quarantine.record(request, now)


def test_a_request_is_held_back_once_it_killed_the_allowed_number_of_workers():
    quarantine = Quarantine(3, 10.0)
    died(quarantine, POISON, 2)
    assert quarantine.deaths_of(POISON, 0.0) == 0
    died(quarantine, POISON, 1)
    assert quarantine.deaths_of(POISON, 0.0) == 3


def test_the_number_of_deaths_is_complete_even_above_the_limit():
    quarantine = Quarantine(2, 10.0)
    died(quarantine, POISON, 5)
    assert quarantine.deaths_of(POISON, 0.0) == 5


def test_no_statement_is_held_back_for_the_deaths_of_another_statement():
    quarantine = Quarantine(1, 10.0)
    died(quarantine, POISON, 3)
    assert quarantine.deaths_of(Query("SELECT 1"), 0.0) == 0


def test_a_statement_that_was_never_answered_is_held_back_with_any_parameters():
    quarantine = Quarantine(3, 10.0)
    died(quarantine, POISON, 2)
    died(quarantine, OTHER, 1)
    assert quarantine.deaths_of(POISON, 0.0) == 3
    assert quarantine.deaths_of(Query("SELECT boom(?)", (3,)), 0.0) == 3


def test_a_statement_that_was_answered_with_other_parameters_is_held_back_with_the_deadly_ones_only():
    quarantine = Quarantine(3, 10.0)
    died(quarantine, POISON, 3)
    quarantine.clear(OTHER)
    assert quarantine.deaths_of(OTHER, 0.0) == 0
    assert quarantine.deaths_of(POISON, 0.0) == 3


def test_a_request_that_was_answered_is_suspected_no_more():
    quarantine = Quarantine(3, 10.0)
    died(quarantine, POISON, 3)
    quarantine.clear(POISON)
    assert quarantine.deaths_of(POISON, 0.0) == 0
    assert quarantine.deaths == []


def test_an_answer_leaves_the_deaths_of_other_statements():
    quarantine = Quarantine(1, 10.0)
    died(quarantine, POISON, 1)
    quarantine.clear(Query("SELECT 1"))
    assert quarantine.deaths_of(POISON, 0.0) == 1


def test_deaths_after_an_answer_count_anew():
    quarantine = Quarantine(2, 10.0)
    died(quarantine, POISON, 1)
    quarantine.clear(OTHER)
    died(quarantine, OTHER, 1)
    assert quarantine.deaths_of(Query("SELECT boom(?)", (3,)), 0.0) == 0
    died(quarantine, Query("SELECT boom(?)", (4,)), 1)
    assert quarantine.deaths_of(Query("SELECT boom(?)", (3,)), 0.0) == 2


def test_deaths_are_forgotten_after_the_window():
    quarantine = Quarantine(2, 10.0)
    died(quarantine, POISON, 1, now=0.0)
    died(quarantine, POISON, 1, now=5.0)
    assert quarantine.deaths_of(POISON, 9.9) == 2
    assert quarantine.deaths_of(POISON, 10.0) == 0
    assert quarantine.deaths_of(POISON, 15.0) == 0
    assert quarantine.deaths == []


def test_recording_a_death_forgets_those_before_the_window():
    quarantine = Quarantine(2, 10.0)
    died(quarantine, POISON, 1, now=0.0)
    died(quarantine, POISON, 1, now=10.0)
    assert len(quarantine.deaths) == 1


def test_without_a_limit_of_deaths_nothing_is_noted_or_held_back():
    quarantine = Quarantine(0, 10.0)
    died(quarantine, POISON, 5)
    assert quarantine.deaths == []
    assert quarantine.deaths_of(POISON, 0.0) == 0


def test_many_runs_and_calls_are_distinguished_by_all_their_parameters():
    good, bad = Query("INSERT …", many=[(1,), (2,)]), Query("INSERT …", many=[(1,), (3,)])
    for harmless, deadly in ((good, bad), (Call(len, 1), Call(len, 2))):
        quarantine = Quarantine(2, 10.0)
        died(quarantine, deadly, 1)
        quarantine.clear(harmless)
        died(quarantine, deadly, 1)
        assert quarantine.deaths_of(deadly, 0.0) == 2
        quarantine.clear(harmless)
        assert quarantine.deaths_of(harmless, 0.0) == 0


def test_a_script_is_known_by_its_text():
    quarantine = Quarantine(2, 10.0)
    died(quarantine, Script("SELECT boom();"), 2)
    assert quarantine.deaths_of(Script("SELECT boom();"), 0.0) == 2
    assert quarantine.deaths_of(Script("SELECT 1;"), 0.0) == 0
    quarantine.clear(Script("SELECT boom();"))
    assert quarantine.deaths_of(Script("SELECT boom();"), 0.0) == 0


class Stranger:
    """A parameter of a caller's type, whose methods the dispatcher must not call under a lock."""

    def __eq__(self, other):
        raise AssertionError

    def __hash__(self):
        raise AssertionError


def test_parameters_of_a_callers_type_are_left_alone():
    quarantine = Quarantine(2, 10.0)
    request = Query("SELECT boom(?)", (Stranger(),))
    died(quarantine, request, 2)
    assert quarantine.deaths_of(request, 0.0) == 2
    quarantine.clear(request)
    assert quarantine.deaths_of(request, 0.0) == 0


def test_no_parameter_is_remembered():
    quarantine = Quarantine(2, 10.0)
    secret = "a secret of one caller"
    quarantine.record(Query("SELECT ?", (secret,)), 0.0)
    (death,) = quarantine.deaths
    assert secret not in [getattr(death, name) for name in death.__slots__]
    assert type(death.digest) is int


def test_a_request_is_recognised_however_its_parameters_were_made():
    quarantine = Quarantine(1, 10.0)
    text = str(b"parameter", "ascii")  # equal to a constant of a program, but another object
    quarantine.record(Query("SELECT boom(?)", ("parameter",)), 0.0)
    quarantine.clear(Query("SELECT boom(?)", ("another",)))
    assert quarantine.deaths_of(Query("SELECT boom(?)", (text,)), 0.0) == 1


def test_a_statement_that_died_together_with_others_is_suspected_and_not_held_back():
    quarantine = Quarantine(2, 10.0)
    assert not quarantine.suspects(POISON)
    for _ in range(5):
        quarantine.record(POISON, 0.0, alone=False)
    assert quarantine.deaths_of(POISON, 0.0) == 0
    assert quarantine.suspects(POISON)
    quarantine.clear(OTHER)
    assert not quarantine.suspects(POISON), "the statement was answered meanwhile"
    died(quarantine, POISON, 2)
    assert quarantine.deaths_of(POISON, 0.0) == 2
