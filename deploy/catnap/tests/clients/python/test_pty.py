"""Terminals."""

from conftest import until
from e2b.sandbox.commands.command_handle import PtySize


def test_a_terminal(shared):
    terminal = shared.pty.create(PtySize(rows=24, cols=80), timeout=120)
    seen = b""

    def read_until(mark):
        nonlocal seen
        for _, _, data in events:
            seen += data or b""
            if mark in (data or b"") or mark in seen[-200:]:
                return
        raise AssertionError(seen)

    events = iter(terminal)
    shared.pty.send_stdin(terminal.pid, b"stty size; echo $TERM-$((40 + 2))\n")
    read_until(b"xterm-256color-42")
    assert b"24 80" in seen
    shared.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
    shared.pty.send_stdin(terminal.pid, b"stty size; echo re-$((40 + 2))\n")
    read_until(b"re-42")
    assert b"30 100" in seen
    # The shell has let go of the terminal when the second line is seen: Ctrl-C is no mere character from then on.
    seen = b""
    shared.pty.send_stdin(terminal.pid, b"cat\nmew\n")
    read_until(b"mew")
    shared.pty.send_stdin(terminal.pid, b"\x03")
    shared.pty.send_stdin(terminal.pid, b"echo in-$((40 + 2))\n")
    read_until(b"in-42")
    assert shared.pty.kill(terminal.pid) is True
    until(lambda: terminal.pid not in [process.pid for process in shared.commands.list()])
