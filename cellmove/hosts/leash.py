"""The program that starts a command on a host: fed to `python3 -c`, for Python 3.6 and later.

    COUNT SECONDS COMMAND...

The command's input is the first COUNT bytes of ours. It is ended when SECONDS are over (then the
status is 124) or when our input ends, that is when the other side has hung up: sshd alone would
let it run on. What runs under sudo is not ours to end; sudo has time limits of its own.
"""

import os
import signal
import subprocess
import sys
import threading

TIME_IS_OVER = 124


def feed(child: "subprocess.Popen[bytes]", count: int) -> None:
    """Hand the command its input, then wait for the end of ours and end the command."""
    into = child.stdin
    assert into is not None
    while count:
        data = os.read(0, count)
        if not data:
            break
        count -= len(data)
        try:
            into.write(data)
        except OSError:
            pass  # It does not want its input.
    try:
        into.close()
    except OSError:
        pass
    while os.read(0, 4096):
        pass
    end_soon(child)
    os._exit(TIME_IS_OVER)


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


def main() -> int:
    count, seconds, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 127
    threading.Thread(target=feed, args=(child, count), daemon=True).start()
    try:
        status = child.wait(seconds)
    except subprocess.TimeoutExpired:
        end_soon(child)
        return TIME_IS_OVER
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # The thread may still wait for input.
