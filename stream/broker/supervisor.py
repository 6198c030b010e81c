"""Run one command that cannot outlive the process that started it.

    parent ──pipe──▶ supervisor ──▶ command

Run as a script by path (`python -I -S supervisor.py …`), with the standard library only, so that it
starts in some 30 ms and depends on nothing. It stands between the two because each simpler way
leaks: `PR_SET_PDEATHSIG` set by the parent fires when the *thread* that forked ends; an `atexit`
hook or a signal handler does not run on SIGKILL; a watchdog beside the command could kill a
stranger that got its process id. Here the command is the supervisor's own child, the supervisor has
one thread, so the death signal it sets is dependable, and the kernel closes the pipe when the
parent dies, however it dies.

Arguments: parent's process id, log file, folder to remove when the parent dies ("" for none), and
the command. On standard input one byte is one order: `T` terminate, `K` kill; its end means that
the parent is gone. On standard output, one line: the command's process id, or `error: …`. The exit
code is the command's, 128 + the signal's number where a signal ended it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys

GRACE_S = 5.0  # between asking the command to end and killing it, once the parent is gone
LOOK_S = 1.0  # how often to see that the parent lives: a fork of it may keep the pipe open


def _death_signal() -> None:
    """In the command, before exec: be killed when the supervisor dies (Linux)."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _note(_signum: int, _frame: object) -> None:
    """Does nothing: the wake-up descriptor carries the signal's number to the loop."""


def main(argv: list[str]) -> int:
    parent, log_path, doomed_folder, command = int(argv[1]), argv[2], argv[3], argv[4:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, _note)
    signal.signal(signal.SIGTERM, _note)
    try:
        with open(log_path, "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_death_signal if sys.platform == "linux" else None,
            )
    except OSError as error:
        print(f"error: {error}", flush=True)
        return 127
    print(child.pid, flush=True)
    parent_lives = True
    while child.poll() is None and parent_lives:
        ready, _, _ = select.select([0, wake_read], [], [], LOOK_S)
        if wake_read in ready and signal.SIGTERM in os.read(wake_read, 64):
            child.terminate()
        if 0 in ready:
            orders = os.read(0, 64)
            parent_lives = bool(orders)
            if b"K" in orders:
                child.kill()
            elif b"T" in orders:
                child.terminate()
        parent_lives = parent_lives and os.getppid() == parent
    if not parent_lives:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
    code = child.wait()
    if not parent_lives and doomed_folder:
        shutil.rmtree(doomed_folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
