"""Terminals."""

from conftest import wait_until
from e2b.sandbox.commands.command_handle import PtySize

PROMPT = b"$ "
"""The tests wait for it before they type: earlier input may go to the terminal or to the previous program."""


def test_terminal_echoes_resizes_and_is_killed(shared):
    terminal = shared.pty.create(PtySize(rows=24, cols=80), timeout=120)
    events = iter(terminal)
    output = b""

    def read_until(mark):
        nonlocal output
        while mark not in output:
            _, _, data = next(events)
            output += data or b""
        end = output.index(mark) + len(mark)
        before, output = output[:end], output[end:]
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
    wait_until(lambda: terminal.pid not in [process.pid for process in shared.commands.list()])
