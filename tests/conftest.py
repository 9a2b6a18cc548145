"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Hear signals again that whoever started the tests in the background had us ignore.

    A process inherits that, and so does every cellmove that a test starts and then interrupts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
