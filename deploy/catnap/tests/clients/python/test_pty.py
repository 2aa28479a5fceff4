"""Terminals."""

from conftest import until
from e2b.sandbox.commands.command_handle import PtySize

PROMPT = b"$ "
"""What is typed while the shell has no prompt is not its alone: it may be the terminal's, or the last program's."""


def test_a_terminal(shared):
    terminal = shared.pty.create(PtySize(rows=24, cols=80), timeout=120)
    events = iter(terminal)
    seen = b""

    def read_until(mark):
        nonlocal seen
        while mark not in seen:
            _, _, data = next(events)
            seen += data or b""
        end = seen.index(mark) + len(mark)
        before, seen = seen[:end], seen[end:]
        return before

    def write(data):
        shared.pty.send_stdin(terminal.pid, data)

    read_until(PROMPT)
    write(b"stty size; echo $TERM-$((40 + 2))\n")
    assert b"24 80" in read_until(b"xterm-256color-42")
    read_until(PROMPT)
    shared.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
    write(b"stty size; echo re-$((40 + 2))\n")
    assert b"30 100" in read_until(b"re-42")
    read_until(PROMPT)
    write(b"echo cat-$((40 + 2)); cat\n")
    read_until(b"cat-42")
    write(b"mew\n")
    read_until(b"mew")
    write(b"\x03")
    read_until(PROMPT)
    write(b"echo in-$((40 + 2))\n")
    read_until(b"in-42")
    assert shared.pty.kill(terminal.pid) is True
    until(lambda: terminal.pid not in [process.pid for process in shared.commands.list()])
