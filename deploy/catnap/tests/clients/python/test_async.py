"""The asynchronous client: callbacks of streams, and concurrent calls."""

import asyncio

import pytest
from e2b import AsyncSandbox
from e2b.sandbox.commands.command_handle import CommandExitException, PtySize
from e2b.sandbox.filesystem.watch_handle import FilesystemEventType


async def wait_until(condition, timeout=60):
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.2)


async def check_output_callbacks(sandbox):
    lines = []
    done = await sandbox.commands.run(
        "echo one; echo two >&2; exit 0",
        on_stdout=lambda text: lines.append(text),
        on_stderr=lambda text: lines.append(text),
    )
    assert sorted(lines) == ["one\n", "two\n"] and (done.stdout, done.stderr) == ("one\n", "two\n")
    with pytest.raises(CommandExitException) as failed:
        await sandbox.commands.run("exit 5")
    assert failed.value.exit_code == 5


async def check_reconnection(sandbox):
    cat = await sandbox.commands.run("cat", background=True, stdin=True, timeout=0)
    assert cat.pid in [process.pid for process in await sandbox.commands.list()]
    await cat.disconnect()
    reconnected = await sandbox.commands.connect(cat.pid, timeout=60)
    await sandbox.commands.send_stdin(cat.pid, "hello\n")
    await wait_until(lambda: reconnected.stdout == "hello\n")
    assert await reconnected.kill()


async def check_watch(sandbox):
    events = []
    await sandbox.files.make_dir("/home/user/watched")
    watch = await sandbox.files.watch_dir("/home/user/watched", on_event=events.append, timeout=0, recursive=True)
    await sandbox.files.write("/home/user/watched/new/a", "x")
    await wait_until(lambda: ("new/a", FilesystemEventType.WRITE) in [(event.name, event.type) for event in events])
    await watch.stop()


async def check_terminal(sandbox):
    output = bytearray()
    terminal = await sandbox.pty.create(PtySize(rows=24, cols=80), on_data=output.extend, timeout=0)
    await wait_until(lambda: b"$" in output)
    await sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
    await sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    assert (await terminal.wait()).exit_code == 0
    assert b"30 100" in output


def test_concurrent_calls_succeed():
    async def run():
        sandbox = await AsyncSandbox.create(timeout=600)
        try:
            await asyncio.gather(check_output_callbacks(sandbox), check_reconnection(sandbox), check_watch(sandbox))
            await check_terminal(sandbox)
            names = [f"many/{number}" for number in range(20)]
            await asyncio.gather(*(sandbox.files.write(name, name) for name in names))
            assert await asyncio.gather(*(sandbox.files.read(name) for name in names)) == names
            await sandbox.pause()
            assert not await sandbox.is_running()
            resumed = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=300)
            assert await resumed.files.read("many/7") == "many/7"
        finally:
            await sandbox.kill()

    asyncio.run(run())
