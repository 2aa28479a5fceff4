"""Pauses, resumes, deadlines, forks and snapshots."""

import uuid
from datetime import timedelta

import pytest
from conftest import newest_only, wait_until
from e2b import Sandbox, SandboxState
from e2b.exceptions import NotFoundException, SandboxException

BOOT = "/proc/sys/kernel/random/boot_id"


@pytest.mark.short
def test_pause_keeps_memory_and_processes(create):
    sandbox = create()
    sandbox.files.write("file.txt", "text")
    boot = sandbox.files.read(BOOT)
    sleeper = sandbox.commands.run("sleep 3600", background=True, timeout=0)
    pid = sleeper.pid
    sleeper.disconnect()
    sandbox.pause()
    assert not sandbox.is_running()
    assert sandbox.get_info().state == SandboxState.PAUSED
    resumed = sandbox.connect(timeout=300)
    assert resumed.sandbox_id == sandbox.sandbox_id
    assert sandbox.files.read("file.txt") == "text"
    assert sandbox.files.read(BOOT) == boot
    assert pid in [process.pid for process in sandbox.commands.list()]
    assert sandbox.commands.kill(pid) is True


def test_disk_only_pause_keeps_files_and_boots(create):
    sandbox = create()
    sandbox.files.write("file.txt", "text")
    boot = sandbox.files.read(BOOT)
    sandbox.pause(keep_memory=False)
    assert sandbox.get_info().state == SandboxState.PAUSED
    assert not sandbox.is_running(), "requests do not wake it"
    sandbox.connect(timeout=300, request_timeout=120)
    assert sandbox.files.read("file.txt") == "text"
    assert sandbox.files.read(BOOT) != boot


def test_connect_extends_and_never_shortens_the_deadline(create):
    sandbox = create(timeout=100)
    end = sandbox.get_info().end_at
    sandbox.connect(timeout=20)
    assert sandbox.get_info().end_at == end
    sandbox.connect(timeout=200)
    later = sandbox.get_info().end_at
    assert later - end > timedelta(seconds=80)
    sandbox.set_timeout(50)
    assert sandbox.get_info().end_at < later


def test_expired_sandbox_is_killed(create):
    sandbox = create()
    sandbox.set_timeout(0)
    wait_until(lambda: not sandbox.is_running())

    def is_gone():
        try:
            sandbox.connect()
        except NotFoundException:
            return True
        except SandboxException as error:
            assert "is being killed" in str(error)

    wait_until(is_gone)
    with pytest.raises(NotFoundException):
        Sandbox.get_info(sandbox.sandbox_id)


def test_expired_sandbox_is_paused_and_woken_by_requests(create):
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = create(lifecycle=lifecycle)
    sandbox.files.write("file.txt", "text")
    boot = sandbox.files.read(BOOT)
    sandbox.set_timeout(0)
    wait_until(lambda: sandbox.get_info().state == SandboxState.PAUSED)
    assert sandbox.files.read("file.txt") == "text"
    info = sandbox.get_info()
    assert info.state == SandboxState.RUNNING
    assert sandbox.files.read(BOOT) == boot
    assert info.end_at - info.started_at > timedelta(seconds=290)
    assert (info.lifecycle["on_timeout"], info.lifecycle["auto_resume"]) == ("pause", True)


def test_requests_do_not_wake_without_auto_resume(create):
    sandbox = create(lifecycle={"on_timeout": "pause"})
    sandbox.pause()
    assert not sandbox.is_running()
    assert sandbox.get_info().state == SandboxState.PAUSED


def test_expired_sandbox_keeps_its_disk_only(create):
    pause = {"action": "pause", "keep_memory": False}
    sandbox = create(lifecycle={"on_timeout": pause})
    sandbox.files.write("file.txt", "text")
    sandbox.set_timeout(0)
    wait_until(lambda: sandbox.get_info().state == SandboxState.PAUSED)
    sandbox.connect(timeout=300, request_timeout=120)
    assert sandbox.files.read("file.txt") == "text"


def test_forks_continue_from_their_origin(create):
    origin = create()
    origin.files.write("origin.txt", "here")
    forks = origin.fork(count=2, timeout=300)
    try:
        assert len(forks) == 2
        sandboxes = [getattr(fork, "sandbox", fork) for fork in forks]
        ids = {origin.sandbox_id, *(sandbox.sandbox_id for sandbox in sandboxes)}
        assert len(ids) == 3
        identities = {origin.commands.run("cat /etc/machine-id; hostname").stdout}
        for sandbox in sandboxes:
            assert sandbox.files.read("origin.txt") == "here"
            identities.add(sandbox.commands.run("cat /etc/machine-id; hostname").stdout)
            sandbox.files.write("origin.txt", "there")
        assert len(identities) == 3
        assert origin.files.read("origin.txt") == "here"
    finally:
        for sandbox in sandboxes:
            sandbox.kill()


def test_snapshots_create_sandboxes_until_deleted(create):
    sandbox = create()
    sandbox.files.write("file.txt", "before")
    name = "snap-" + uuid.uuid4().hex[:8]
    unnamed = sandbox.create_snapshot()
    named = sandbox.create_snapshot(name=name)
    sandbox.files.write("file.txt", "after")
    listed = []
    paginator = sandbox.list_snapshots()
    while paginator.has_next:
        listed += paginator.next_items()
    assert {unnamed.snapshot_id, named.snapshot_id} <= {snapshot.snapshot_id for snapshot in listed}
    sandbox.kill()
    for snapshot in (unnamed, named):
        other = create(snapshot.snapshot_id)
        assert other.files.read("file.txt") == "before"
        assert other.sandbox_id != sandbox.sandbox_id
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
    with pytest.raises(Exception, match="not found"):
        Sandbox.create(named.snapshot_id)


@newest_only
def test_reboot_of_full_pause_keeps_files(create):
    sandbox = create()
    sandbox.commands.run("echo text > file.txt; sync")
    boot = sandbox.files.read(BOOT)
    sandbox.pause()
    sandbox.connect(timeout=300, on_resume="reboot", request_timeout=120)
    assert sandbox.files.read("file.txt") == "text\n"
    assert sandbox.files.read(BOOT) != boot


def test_repeated_pause_and_connect_succeed(create):
    sandbox = create()
    sandbox.pause()
    assert sandbox.pause() is False
    sandbox.connect(timeout=300)
    sandbox.connect(timeout=300)
    assert sandbox.is_running()
