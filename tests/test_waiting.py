"""Loops that wait: what they return, what they raise, and when."""

import time
from itertools import count

import pytest

from holdfast.errors import InputError, RunError
from holdfast.waiting import poll, retry


def failing(times, error):
    """An act that fails so many times, then returns how often it was called."""
    calls = count(1)

    def act():
        number = next(calls)
        if number <= times:
            raise error
        return number

    return act


def test_a_poll_ends_with_the_first_result_that_is_done():
    numbers = count()
    assert poll(lambda: next(numbers), lambda number: number == 3, 5, 0.001) == 3
    assert next(numbers) == 4


def test_a_poll_looks_once_even_without_time_and_gives_what_was_last():
    assert poll(lambda: "not yet", lambda found: False, -1, 5) == "not yet"
    began = time.monotonic()
    assert poll(lambda: "not yet", lambda found: False, 0.1, 0.01) == "not yet"
    assert 0.1 <= time.monotonic() - began < 2


def test_an_error_that_may_pass_is_reported_and_tried_again():
    reported = []
    assert retry(failing(2, RunError("busy")), lambda error: 0.0, 5, reported.append) == 3
    assert [str(error) for error in reported] == ["busy", "busy"]


def test_an_error_that_does_not_pass_is_raised_at_once():
    with pytest.raises(InputError, match="broken"):
        retry(failing(1, InputError("broken")), lambda error: 0.0 if isinstance(error, RunError) else None, 5)


def test_no_pause_goes_beyond_the_time():
    began, reported = time.monotonic(), []
    with pytest.raises(RunError, match="busy"):
        retry(failing(1, RunError("busy")), lambda error: 10.0, 1, reported.append)
    assert time.monotonic() - began < 1
    assert reported == []


def test_a_bug_is_not_tried_again():
    with pytest.raises(ZeroDivisionError):
        retry(failing(1, ZeroDivisionError()), lambda error: 0.0, 5)
