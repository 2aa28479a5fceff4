"""What the asynchronous client does in ways of its own: streams that call back, and many calls at once."""

import asyncio

import pytest
from conftest import TLS
from e2b import AsyncSandbox
from e2b.sandbox.commands.command_handle import CommandExitException, PtySize
from e2b.sandbox.filesystem.watch_handle import FilesystemEventType

pytestmark = pytest.mark.skipif(not TLS, reason="one way of reaching the gateway is enough")


async def until(what, limit=60):
    async with asyncio.timeout(limit):
        while not what():
            await asyncio.sleep(0.2)


async def calls_back(sandbox):
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


async def keeps_processes(sandbox):
    cat = await sandbox.commands.run("cat", background=True, stdin=True, timeout=0)
    assert cat.pid in [process.pid for process in await sandbox.commands.list()]
    await cat.disconnect()
    again = await sandbox.commands.connect(cat.pid, timeout=60)
    await sandbox.commands.send_stdin(cat.pid, "hello\n")
    await until(lambda: again.stdout == "hello\n")
    assert await again.kill()


async def watches(sandbox):
    seen = []
    await sandbox.files.make_dir("/home/user/watched")
    watch = await sandbox.files.watch_dir("/home/user/watched", on_event=seen.append, timeout=0, recursive=True)
    await sandbox.files.write("/home/user/watched/new/a", "x")
    await until(lambda: ("new/a", FilesystemEventType.WRITE) in [(event.name, event.type) for event in seen])
    await watch.stop()


async def has_a_terminal(sandbox):
    seen = bytearray()
    terminal = await sandbox.pty.create(PtySize(rows=24, cols=80), on_data=seen.extend, timeout=0)
    await until(lambda: b"$" in seen)
    await sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
    await sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    assert (await terminal.wait()).exit_code == 0
    assert b"30 100" in seen


def test_many_things_at_once():
    async def story():
        sandbox = await AsyncSandbox.create(timeout=600)
        try:
            await asyncio.gather(calls_back(sandbox), keeps_processes(sandbox), watches(sandbox))
            await has_a_terminal(sandbox)
            names = [f"many/{number}" for number in range(20)]
            await asyncio.gather(*(sandbox.files.write(name, name) for name in names))
            assert await asyncio.gather(*(sandbox.files.read(name) for name in names)) == names
            await sandbox.pause()
            assert not await sandbox.is_running()
            woken = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=300)
            assert await woken.files.read("many/7") == "many/7"
        finally:
            await sandbox.kill()

    asyncio.run(story())
