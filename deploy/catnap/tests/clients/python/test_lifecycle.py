"""Sleeping and waking, time windows, forks and snapshots."""

import uuid
from datetime import timedelta

import pytest
from conftest import TLS, newest_only, until
from e2b import Sandbox, SandboxState
from e2b.exceptions import NotFoundException, SandboxException

BOOT = "/proc/sys/kernel/random/boot_id"


def test_a_pause_keeps_memory_and_processes(create):
    sandbox = create()
    sandbox.files.write("kept.txt", "kept")
    boot = sandbox.files.read(BOOT)
    sleeper = sandbox.commands.run("sleep 3600", background=True, timeout=0)
    pid = sleeper.pid
    sleeper.disconnect()
    sandbox.pause()
    assert not sandbox.is_running()
    assert sandbox.get_info().state == SandboxState.PAUSED
    woken = sandbox.connect(timeout=300)
    assert woken.sandbox_id == sandbox.sandbox_id
    assert sandbox.files.read("kept.txt") == "kept"
    assert sandbox.files.read(BOOT) == boot
    assert pid in [process.pid for process in sandbox.commands.list()]
    assert sandbox.commands.kill(pid) is True


@pytest.mark.skipif(not TLS, reason="one boot a client is enough")
def test_a_pause_without_memory_keeps_the_disk(create):
    sandbox = create()
    sandbox.files.write("kept.txt", "kept")
    boot = sandbox.files.read(BOOT)
    sandbox.pause(keep_memory=False)
    assert sandbox.get_info().state == SandboxState.PAUSED
    assert not sandbox.is_running(), "a request does not wake it"
    sandbox.connect(timeout=300, request_timeout=120)
    assert sandbox.files.read("kept.txt") == "kept"
    assert sandbox.files.read(BOOT) != boot


def test_windows_are_moved_and_never_shortened_by_connecting(create):
    sandbox = create(timeout=100)
    end = sandbox.get_info().end_at
    sandbox.connect(timeout=20)
    assert sandbox.get_info().end_at == end
    sandbox.connect(timeout=200)
    later = sandbox.get_info().end_at
    assert later - end > timedelta(seconds=80)
    sandbox.set_timeout(50)
    assert sandbox.get_info().end_at < later


def test_at_its_end_a_sandbox_is_killed(create):
    sandbox = create()
    sandbox.set_timeout(0)
    until(lambda: not sandbox.is_running())

    def is_gone():
        try:
            sandbox.connect()
        except NotFoundException:
            return True
        except SandboxException as error:
            assert "is being killed" in str(error)

    until(is_gone)
    with pytest.raises(NotFoundException):
        Sandbox.get_info(sandbox.sandbox_id)


def test_at_its_end_a_sandbox_is_paused_and_a_request_wakes_it(create):
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = create(lifecycle=lifecycle)
    sandbox.files.write("kept.txt", "kept")
    boot = sandbox.files.read(BOOT)
    sandbox.set_timeout(0)
    until(lambda: sandbox.get_info().state == SandboxState.PAUSED)
    assert sandbox.files.read("kept.txt") == "kept"
    info = sandbox.get_info()
    assert info.state == SandboxState.RUNNING
    assert sandbox.files.read(BOOT) == boot
    assert info.end_at - info.started_at > timedelta(seconds=290)
    assert (info.lifecycle["on_timeout"], info.lifecycle["auto_resume"]) == ("pause", True)


def test_without_auto_resume_a_request_wakes_nothing(create):
    sandbox = create(lifecycle={"on_timeout": "pause"})
    sandbox.pause()
    assert not sandbox.is_running()
    assert sandbox.get_info().state == SandboxState.PAUSED


@pytest.mark.skipif(not TLS, reason="one boot a client is enough")
def test_at_its_end_a_sandbox_keeps_its_disk_alone_if_so_wished(create):
    pause = {"action": "pause", "keep_memory": False}
    sandbox = create(lifecycle={"on_timeout": pause})
    sandbox.files.write("kept.txt", "kept")
    sandbox.set_timeout(0)
    until(lambda: sandbox.get_info().state == SandboxState.PAUSED)
    sandbox.connect(timeout=300, request_timeout=120)
    assert sandbox.files.read("kept.txt") == "kept"


def test_forks_go_on_where_their_origin_was(create):
    origin = create()
    origin.files.write("origin.txt", "here")
    forks = origin.fork(count=2, timeout=300)
    try:
        assert len(forks) == 2
        sandboxes = [getattr(fork, "sandbox", fork) for fork in forks]
        names = {origin.sandbox_id, *(one.sandbox_id for one in sandboxes)}
        assert len(names) == 3
        seen = {origin.commands.run("cat /etc/machine-id; hostname").stdout}
        for one in sandboxes:
            assert one.files.read("origin.txt") == "here"
            seen.add(one.commands.run("cat /etc/machine-id; hostname").stdout)
            one.files.write("origin.txt", "there")
        assert len(seen) == 3
        assert origin.files.read("origin.txt") == "here"
    finally:
        for one in sandboxes:
            one.kill()


def test_a_snapshot_makes_sandboxes_and_goes(create):
    sandbox = create()
    sandbox.files.write("then.txt", "then")
    name = "snap-" + uuid.uuid4().hex[:8]
    unnamed = sandbox.create_snapshot()
    named = sandbox.create_snapshot(name=name)
    sandbox.files.write("then.txt", "now")
    listed = []
    paginator = sandbox.list_snapshots()
    while paginator.has_next:
        listed += paginator.next_items()
    assert {unnamed.snapshot_id, named.snapshot_id} <= {one.snapshot_id for one in listed}
    sandbox.kill()
    for snapshot in (unnamed, named):
        other = create(snapshot.snapshot_id)
        assert other.files.read("then.txt") == "then"
        assert other.sandbox_id != sandbox.sandbox_id
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
    with pytest.raises(Exception, match="not found"):
        Sandbox.create(named.snapshot_id)


@newest_only
def test_a_sandbox_with_memory_can_be_rebooted(create):
    if not TLS:
        pytest.skip("one boot a client is enough")
    sandbox = create()
    sandbox.commands.run("echo kept > kept.txt; sync")
    boot = sandbox.files.read(BOOT)
    sandbox.pause()
    sandbox.connect(timeout=300, on_resume="reboot", request_timeout=120)
    assert sandbox.files.read("kept.txt") == "kept\n"
    assert sandbox.files.read(BOOT) != boot


def test_pausing_twice_and_connecting_to_one_that_runs(create):
    sandbox = create()
    sandbox.pause()
    assert sandbox.pause() is False
    sandbox.connect(timeout=300)
    sandbox.connect(timeout=300)
    assert sandbox.is_running()
