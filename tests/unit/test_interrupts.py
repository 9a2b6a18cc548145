"""The process sends itself real signals."""

from __future__ import annotations

import os
import signal

import pytest

from cellmove.interrupts import SIGNALS, Interrupts


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_to_stop_and_says_what_will_happen(number: signal.Signals) -> None:
    said: list[str] = []
    with Interrupts(said.append) as interrupts:
        assert not interrupts.should_stop()
        send(number)
        assert interrupts.should_stop()
    assert ["after this step" in text for text in said] == [True]


def test_the_second_signal_breaks_the_step_under_way() -> None:
    with Interrupts(lambda _text: None):
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)


def test_an_undo_is_never_broken_and_every_signal_is_answered() -> None:
    said: list[str] = []
    with Interrupts(said.append) as interrupts:
        interrupts.hold()
        for _ in range(3):
            send(signal.SIGINT)
    assert len(said) == 3
    assert all("Taking back" in text for text in said)


def test_after_the_block_signals_mean_what_they_meant_before() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Interrupts(lambda _text: None):
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_ignored_as_nohup_wants_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts(lambda _text: None) as interrupts:
            send(signal.SIGHUP)
            assert not interrupts.should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)
