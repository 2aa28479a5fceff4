"""The `cubesandbox` client over plain HTTP: one address, with host names in `Host`."""

import os
import time
import uuid

import pytest
import requests
from cubesandbox import Sandbox


def test_commands_run_and_files_are_stored(create):
    sandbox = create(envs={"COLOUR": "blue"}, metadata={"for": "cube"})
    done = sandbox.commands.run('echo "$COLOUR $PWD"; echo err >&2; exit 3')
    assert (done.stdout, done.stderr, done.exit_code) == ("blue /root\n", "err\n", 3)
    sandbox.files.write("/home/user/a/b.txt", "grün")
    assert sandbox.files.read("/home/user/a/b.txt") == "grün"
    assert [file["name"] for file in sandbox.files.list("/home/user/a")] == ["b.txt"]
    sandbox.files.rename("/home/user/a/b.txt", "/home/user/a/c.txt")
    assert sandbox.files.exists("/home/user/a/c.txt") and not sandbox.files.exists("/home/user/a/b.txt")
    sandbox.files.remove("/home/user/a")
    assert not sandbox.files.exists("/home/user/a")
    info = sandbox.get_info()
    assert (info["sandboxID"], info["state"]) == (sandbox.sandbox_id, "running")
    assert sandbox.sandbox_id in [it["sandboxID"] for it in Sandbox.list_v2()]
    assert Sandbox.health()


def test_command_user_directory_and_termination(create):
    sandbox = create()
    result = sandbox.commands.run(
        "id -un; pwd; echo $SHAPE; printf '\\xff'", user="user", cwd="/tmp", envs={"SHAPE": "round"}
    )
    assert result.stdout == "user\n/tmp\nround\n\ufffd"
    assert sandbox.commands.run("kill -TERM $$").exit_code != 0
    with pytest.raises(Exception):
        sandbox.commands.run("sleep 3600", timeout=2)
    sleeping = "ps -eo args | grep -c '[s]leep 3600' || true"
    assert sandbox.commands.run(sleeping).stdout == "0\n"
    assert sandbox.files.write_files([("/root/a", "1"), ("/root/b", b"2")]) == 2
    assert sandbox.files.stat("/root/a")["size"] in (1, "1")
    with pytest.raises(Exception):
        sandbox.files.read("/root/none")


def test_watch_reports_changes(create):
    sandbox = create()
    sandbox.files.make_dir("/home/user/watched")
    with sandbox.files.watch_dir("/home/user/watched") as events:
        sandbox.commands.run("echo x > /home/user/watched/a")
        event = next(events)
    assert (event.name, event.type) == ("a", "EVENT_TYPE_CREATE")


def test_terminal_echoes_and_reconnects(create):
    from cubesandbox._pty import PtySize

    sandbox = create()
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.send_stdin(terminal.pid, b"echo in-$((40 + 2)); exit\n")
    output = b"".join(bytes(data) for data in terminal)
    assert b"in-42" in output
    other = sandbox.pty.create(PtySize(rows=24, cols=80))
    other.resize(PtySize(rows=30, cols=100))
    other.disconnect()
    reconnected = sandbox.pty.connect(other.pid)
    reconnected.send_stdin("stty size; exit\n")
    output = bytearray()
    assert reconnected.wait(on_data=output.extend) == 0
    assert b"30 100" in output


def test_sandbox_kill_ends_running_commands(create):
    import threading

    sandbox = create()
    sandbox.files.make_dir("/root/started")
    results = []

    def run():
        try:
            results.append(sandbox.commands.run("touch /root/started/yes; sleep 3600", timeout=300))
        except Exception as error:
            results.append(error)

    with sandbox.files.watch_dir("/root/started") as events:
        running = threading.Thread(target=run)
        running.start()
        next(events)
    Sandbox.connect(sandbox.sandbox_id).kill()
    running.join(60)
    assert isinstance(results[0], Exception)


def test_pause_and_resume_keep_files(create):
    sandbox = create()
    sandbox.files.write("/home/user/file.txt", "text")
    sandbox.pause()
    assert sandbox.get_info()["state"] == "paused"
    connected = Sandbox.connect(sandbox.sandbox_id)
    assert connected.files.read("/home/user/file.txt") == "text"
    sandbox.pause()
    sandbox.resume(timeout=300)
    assert sandbox.files.read("/home/user/file.txt") == "text"


def test_unlimited_lifetime_has_no_deadline(create):
    sandbox = create()
    sandbox.set_timeout(-1)
    assert "endAt" not in sandbox.get_info()
    native = {"X-API-Key": os.environ["CUBE_API_KEY"]}
    e2b = native | {"User-Agent": "e2b-python-sdk/2.63.0"}
    url = f"{os.environ['CUBE_API_URL']}/sandboxes/{sandbox.sandbox_id}"
    assert requests.get(url, headers=e2b, timeout=60).json()["endAt"] == "9999-12-31T23:59:59Z"
    assert "endAt" not in requests.get(url, headers=native, timeout=60).json()
    sandbox.set_timeout(120)
    assert "endAt" in sandbox.get_info()
    for invalid in (0, -2):
        with pytest.raises(Exception, match="400|imeout"):
            Sandbox.connect(sandbox.sandbox_id, timeout=invalid)


def test_snapshots_roll_back_and_clone(create):
    sandbox = create()
    sandbox.files.write("/home/user/file.txt", "before")
    boot = sandbox.commands.run("cat /proc/sys/kernel/random/boot_id").stdout
    snapshot = sandbox.create_snapshot(name="cube-" + uuid.uuid4().hex[:8])
    listed, _ = Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id)
    assert snapshot.snapshot_id in [it.snapshot_id for it in listed]
    sandbox.files.write("/home/user/file.txt", "after")
    result = sandbox.rollback(snapshot.snapshot_id)
    assert (result["sandboxID"], result["snapshotID"]) == (sandbox.sandbox_id, snapshot.snapshot_id)
    assert result["status"] and result["operationID"]
    assert sandbox.files.read("/home/user/file.txt") == "before"
    assert sandbox.commands.run("cat /proc/sys/kernel/random/boot_id").stdout == boot
    with pytest.raises(Exception):
        create().rollback(snapshot.snapshot_id)
    clones = sandbox.clone(2)
    try:
        assert [clone.files.read("/home/user/file.txt") for clone in clones] == ["before", "before"]
    finally:
        for clone in clones:
            clone.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id)
    with pytest.raises(Exception) as gone:
        Sandbox.delete_snapshot(snapshot.snapshot_id)
    assert type(gone.value).__name__ == "TemplateNotFoundError"


def test_expired_sandbox_is_paused_and_woken_by_requests(create):
    sandbox = create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.files.write("/home/user/file.txt", "text")
    sandbox.set_timeout(0)
    end = time.monotonic() + 60
    while sandbox.get_info()["state"] != "paused":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sandbox.files.read("/home/user/file.txt") == "text"
    assert sandbox.get_info()["state"] == "running"


def test_private_traffic_requires_its_token(create):
    sandbox = create(network={"allow_public_traffic": False})
    assert sandbox.traffic_access_token
    assert sandbox.commands.run("echo in").stdout == "in\n"
    proxy = f"http://{os.environ['CUBE_PROXY_NODE_IP']}:{os.environ['CUBE_PROXY_PORT_HTTP']}/"
    named = {"Host": sandbox.get_host(8000)}
    refused = requests.get(proxy, headers=named, timeout=60)
    assert refused.status_code == 403
    admitted = requests.get(
        proxy, headers=named | {"cube-traffic-access-token": sandbox.traffic_access_token}, timeout=60
    )
    assert admitted.status_code == 502 and admitted.json()["port"] == 8000


def test_missing_sandbox_and_template_are_not_found(create):
    with pytest.raises(Exception) as missing:
        Sandbox.connect("inosuchsandbox000000")
    assert type(missing.value).__name__ == "SandboxNotFoundError"
    with pytest.raises(Exception) as missing:
        Sandbox.create("no-such-template")
    assert type(missing.value).__name__ == "TemplateNotFoundError"
