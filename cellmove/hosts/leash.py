"""The program that runs our commands on a host: fed to `python3 -c`, for Python 3.6 and later.

One after the other: asked `?`, we answer `!`. After a line of JSON, [COMMAND, SECONDS, COUNT], and
COUNT bytes, the command's input, the answer is a line of JSON, [STATUS, OUT, ERR], and as many
bytes of what the command said on its two streams.

The command is ended when its seconds are over (then the status is 124) or when our input ends, that
is when the other side has hung up: sshd alone would let it run on. What runs under sudo is not ours
to end; sudo has time limits of its own.
"""

import json
import os
import signal
import subprocess
import sys
import threading

TIME_IS_OVER = 124


class Leash:
    """The command under way, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = False
        self._child = None  # type: subprocess.Popen[bytes] | None

    def answer(self, command: "list[str]", seconds: float, given: bytes) -> None:
        """Run a command, and tell how it ended."""
        status, out, err = self._run([word.encode() for word in command], seconds, given)
        told = json.dumps([status, len(out), len(err)]).encode()
        say(told + b"\n" + out + err)

    def _run(
        self, command: "list[bytes]", seconds: float, given: bytes
    ) -> "tuple[int, bytes, bytes]":
        pipe = subprocess.PIPE
        with self._lock:
            if self._is_over:
                return TIME_IS_OVER, b"", b""
            try:
                child = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
                )
            except OSError as error:
                return 127, b"", f"{error}\n".encode()
            self._child = child
        try:
            out, err = child.communicate(given, seconds)
        except subprocess.TimeoutExpired:
            end_soon(child)
            return TIME_IS_OVER, b"", b""
        self._child = None
        return child.returncode if child.returncode >= 0 else 128 - child.returncode, out, err

    def let_go(self) -> None:
        """The other side has hung up: nothing runs on, and nothing is begun any more."""
        with self._lock:
            self._is_over = True
        if self._child is not None:
            end_soon(self._child)


def end(child: "subprocess.Popen[bytes]", how: int) -> None:
    """Send a signal to the command and all that it started."""
    try:
        os.killpg(child.pid, how)
    except (ProcessLookupError, PermissionError):
        pass


def end_soon(child: "subprocess.Popen[bytes]") -> None:
    """Ask the command to end, then make it."""
    end(child, signal.SIGTERM)
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        end(child, signal.SIGKILL)


def say(what: bytes) -> None:
    """All at once, so that it travels as one packet if it can."""
    try:
        sys.stdout.buffer.write(what)
        sys.stdout.buffer.flush()
    except OSError:
        pass  # Nobody listens: our input ends as well.


def main() -> None:
    ear, leash = sys.stdin.buffer, Leash()
    while True:
        first = ear.read(1)
        if first == b"?":
            say(b"!")
            continue
        asked = first + ear.readline()
        if not asked.endswith(b"\n"):
            break
        command, seconds, count = json.loads(asked.decode())
        given = ear.read(count)
        if len(given) < count:
            break
        threading.Thread(target=leash.answer, args=(command, seconds, given), daemon=True).start()
    leash.let_go()


if __name__ == "__main__":
    main()
    os._exit(0)  # A thread may still wait for its command.
