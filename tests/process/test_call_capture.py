"""What a call captures of its function, and when."""

import functools

import client_tasks
import pytest

import headrace as hr


@pytest.fixture(scope="module")
def client():
    with hr.Client(workers=1) as client:
        yield client


def test_bound_methods_of_builtin_objects_travel_as_they_are_now(client):
    numbers, table = [1], {"x": 1}
    count, get = numbers.count, table.get
    counted, got = hr.task(count), functools.partial(get)
    for times in (1, 2):
        calls = [client.call(count, 1), client.call(counted, 1), client.call(get, "x"), client.call(got, "x")]
        assert [call.result(timeout=30) for call in calls] == [times] * 4
        numbers.append(1)
        table["x"] = 2


def test_functions_of_modules_and_classes_can_be_called_again(client):
    for _ in range(2):
        assert client.call(len, "ab").result(timeout=30) == 2
        assert client.call(client_tasks.inc, 1).result(timeout=30) == 2
        assert client.call(complex, 1).result(timeout=30) == 1


def test_a_lambda_keeps_the_values_of_its_first_call(client):
    value = 1
    constant = lambda: value  # noqa: E731
    assert client.call(constant).result(timeout=30) == 1
    value = 2
    assert client.call(constant).result(timeout=30) == 1
    assert client.call(lambda: value).result(timeout=30) == 2


class Counted:
    """It counts how often it is pickled."""

    def __init__(self):
        self.pickles = 0

    def __reduce__(self):
        self.pickles += 1
        return int, ()


def test_options_are_no_part_of_a_function(client):
    counted = Counted()
    fn = hr.task(lambda number: number + counted)
    calls = [client.call(fn.options(key=f"number {number}"), number) for number in range(10)]
    assert [call.result(timeout=30) for call in calls] == list(range(10))
    assert client.call(fn.__wrapped__, 10).result(timeout=30) == 10
    assert counted.pickles == 1
