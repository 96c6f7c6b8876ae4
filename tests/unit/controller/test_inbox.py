"""The inbox between paho's thread and the one that commits."""

from __future__ import annotations

import threading

import pytest

from controller.ingest.inbox import Inbox

WAIT_SECONDS = 30.0


@pytest.fixture
def numbers():
    """An inbox with room for ten."""
    return Inbox(most=10)


def test_gives_everything_once_and_in_order_to_a_slow_consumer(numbers):
    producer = threading.Thread(target=lambda: [numbers.put(number) for number in range(500)])
    producer.start()
    taken = []
    while len(taken) < 500:
        taken += numbers.take(7, 0.0)
        assert len(taken) <= 500
    producer.join(WAIT_SECONDS)
    assert taken == list(range(500))
    assert numbers.empty


def test_a_producer_waits_while_there_is_no_room(numbers):
    done = threading.Event()

    def produce():
        for number in range(25):
            numbers.put(number)
        done.set()

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    while len(numbers._items) < 10:
        assert producer.is_alive()
    assert not done.wait(0.3)
    assert len(numbers._items) == 10
    taken = []
    while len(taken) < 25:
        taken += numbers.take(100, 0.0)
    assert done.wait(WAIT_SECONDS)
    assert taken == list(range(25))


def test_takes_no_more_than_asked_for(numbers):
    for number in range(5):
        numbers.put(number)
    assert numbers.take(3, 0.0) == [0, 1, 2]
    assert numbers.take(3, 0.0) == [3, 4]


def test_nothing_comes_of_an_empty_inbox(numbers):
    assert numbers.take(500, 0.0) == []
