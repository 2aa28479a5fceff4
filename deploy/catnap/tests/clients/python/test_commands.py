"""Processes."""

import time

import pytest
from conftest import newest_only
from e2b.exceptions import InvalidArgumentException, NotFoundException, SandboxException, TimeoutException
from e2b import CommandExitException


@pytest.mark.short
def test_output_and_exit_codes_are_returned(shared):
    done = shared.commands.run("echo out; echo err >&2")
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 0)
    with pytest.raises(CommandExitException) as failed:
        shared.commands.run("echo before; exit 3")
    assert (failed.value.exit_code, failed.value.stdout) == (3, "before\n")


def test_environment_user_and_directory_are_applied(shared):
    result = shared.commands.run('echo "$COLOUR $SHAPE $HOME $PWD $E2B_SANDBOX"; umask; id -un', envs={"SHAPE": "round"})
    assert result.stdout == "blue round /home/user /home/user true\n0022\nuser\n"
    assert shared.commands.run("id -un; pwd", user="root", cwd="/tmp").stdout == "root\n/tmp\n"
    assert shared.commands.run("sudo id -un").stdout == "root\n"
    with pytest.raises(InvalidArgumentException, match="does not exist"):
        shared.commands.run("true", cwd="/no/such/directory")
    shared.commands.run("mkdir -m 700 /tmp/closed", user="root")
    with pytest.raises(InvalidArgumentException):
        shared.commands.run("true", cwd="/tmp/closed")
    with pytest.raises(Exception, match="invalid username"):
        shared.commands.run("true", user="no-such-user")


def test_output_is_streamed(shared):
    times = []
    shared.commands.run(
        "for i in 1 2 3; do echo $i; sleep 1; done",
        on_stdout=lambda data: times.append((time.monotonic(), data)),
    )
    assert "".join(data for _, data in times) == "1\n2\n3\n"
    assert times[-1][0] - times[0][0] > 1.5


def test_invalid_utf8_is_replaced(shared):
    # The agent reads chunks that split characters of three bytes.
    out = shared.commands.run("printf '日%.0s' {1..6000}; printf '\\xff'").stdout
    assert out == "日" * 6000 + "\ufffd"


def test_stdin_is_forwarded_until_closed(shared):
    cat = shared.commands.run("cat", background=True, stdin=True)
    shared.commands.send_stdin(cat.pid, "one\n")
    shared.commands.send_stdin(cat.pid, "two\n")
    shared.commands.close_stdin(cat.pid)
    assert cat.wait().stdout == "one\ntwo\n"
    # Without `stdin=True` a command reads end of file.
    assert shared.commands.run("cat; echo done").stdout == "done\n"


@newest_only
def test_stdin_is_streamed(shared):
    count = shared.commands.run("wc -c", background=True, stdin=True)
    shared.commands.stream_input(count.pid, (b"x" * 1000 for _ in range(50)))
    shared.commands.close_stdin(count.pid)
    assert count.wait().stdout.strip() == "50000"


def test_background_processes_are_listed_and_killed(shared):
    sleeper = shared.commands.run("sleep 3600", background=True, timeout=0)
    listed = {process.pid: process for process in shared.commands.list()}
    assert listed[sleeper.pid].cmd == "/bin/bash"
    assert listed[sleeper.pid].args == ["-l", "-c", "sleep 3600"]
    assert shared.commands.kill(sleeper.pid) is True
    with pytest.raises(CommandExitException) as killed:
        sleeper.wait()
    assert killed.value.exit_code != 0
    assert shared.commands.kill(4_000_000) is False
    with pytest.raises(NotFoundException):
        shared.commands.connect(4_000_000)


def test_process_continues_after_a_disconnect(shared):
    process = shared.commands.run(
        "trap 'echo done; exit 0' USR1; echo started; while :; do sleep 0.2; done", background=True, timeout=0
    )
    pid = process.pid
    for out, _, _ in process:
        if out and "started" in out:
            break
    process.disconnect()
    reconnected = shared.commands.connect(pid, timeout=60)
    shared.commands.run(f"kill -USR1 {pid}")
    assert reconnected.wait().stdout == "done\n"


def test_timeout_kills_the_process(shared):
    start = time.monotonic()
    with pytest.raises(TimeoutException):
        shared.commands.run("echo $$ > pid; exec sleep 3600", timeout=3)
    assert time.monotonic() - start < 30
    alive = shared.commands.run("if kill -0 $(cat pid); then echo alive; fi 2>/dev/null").stdout
    assert alive == ""


def test_sandbox_kill_ends_running_commands(create):
    sandbox = create()
    sleeper = sandbox.commands.run("sleep 3600", background=True, timeout=0)
    sandbox.kill()
    with pytest.raises((SandboxException, TimeoutException), match="killed or reached its end of life"):
        sleeper.wait()


def test_large_output_is_complete(shared):
    out = shared.commands.run("head -c 300000 /dev/zero | tr '\\0' x").stdout
    assert len(out) == 300_000
