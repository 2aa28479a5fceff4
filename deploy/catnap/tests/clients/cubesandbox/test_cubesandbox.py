"""What the `cubesandbox` client does, over plain HTTP: names in `Host`, one address for all of them."""

import os
import time
import uuid

import pytest
import requests
from cubesandbox import Sandbox


def test_commands_and_files(create):
    sandbox = create(envs={"COLOUR": "blue"}, metadata={"for": "cube"})
    done = sandbox.commands.run('echo "$COLOUR $PWD"; echo err >&2; exit 3')
    assert (done.stdout, done.stderr, done.exit_code) == ("blue /root\n", "err\n", 3)
    sandbox.files.write("/home/user/a/b.txt", "grün")
    assert sandbox.files.read("/home/user/a/b.txt") == "grün"
    assert [one["name"] for one in sandbox.files.list("/home/user/a")] == ["b.txt"]
    sandbox.files.rename("/home/user/a/b.txt", "/home/user/a/c.txt")
    assert sandbox.files.exists("/home/user/a/c.txt") and not sandbox.files.exists("/home/user/a/b.txt")
    sandbox.files.remove("/home/user/a")
    assert not sandbox.files.exists("/home/user/a")
    info = sandbox.get_info()
    assert (info["sandboxID"], info["state"]) == (sandbox.sandbox_id, "running")
    assert sandbox.sandbox_id in [one["sandboxID"] for one in Sandbox.list_v2()]
    assert Sandbox.health()


def test_whom_a_command_runs_as_and_how_it_ends(create):
    sandbox = create()
    told = sandbox.commands.run(
        "id -un; pwd; echo $SHAPE; printf '\\xff'", user="user", cwd="/tmp", envs={"SHAPE": "round"}
    )
    assert told.stdout == "user\n/tmp\nround\n\ufffd"
    assert sandbox.commands.run("kill -TERM $$").exit_code != 0
    with pytest.raises(Exception):
        sandbox.commands.run("sleep 3600", timeout=2)
    sleeping = "ps -eo args | grep -c '[s]leep 3600' || true"
    assert sandbox.commands.run(sleeping).stdout == "0\n"
    assert sandbox.files.write_files([("/root/a", "1"), ("/root/b", b"2")]) == 2
    assert sandbox.files.stat("/root/a")["size"] in (1, "1")
    with pytest.raises(Exception):
        sandbox.files.read("/root/none")


def test_changes_are_watched(create):
    sandbox = create()
    sandbox.files.make_dir("/home/user/watched")
    with sandbox.files.watch_dir("/home/user/watched") as events:
        sandbox.commands.run("echo x > /home/user/watched/a")
        event = next(events)
    assert (event.name, event.type) == ("a", "EVENT_TYPE_CREATE")


def test_a_terminal(create):
    from cubesandbox._pty import PtySize

    sandbox = create()
    terminal = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.send_stdin(terminal.pid, b"echo in-$((40 + 2)); exit\n")
    seen = b"".join(bytes(data) for data in terminal)
    assert b"in-42" in seen
    other = sandbox.pty.create(PtySize(rows=24, cols=80))
    other.resize(PtySize(rows=30, cols=100))
    other.disconnect()
    again = sandbox.pty.connect(other.pid)
    again.send_stdin("stty size; exit\n")
    seen = bytearray()
    assert again.wait(on_data=seen.extend) == 0
    assert b"30 100" in seen


def test_a_kill_under_a_command(create):
    import threading

    sandbox = create()
    sandbox.files.make_dir("/root/begun")
    told = []

    def run():
        try:
            told.append(sandbox.commands.run("touch /root/begun/yes; sleep 3600", timeout=300))
        except Exception as error:
            told.append(error)

    with sandbox.files.watch_dir("/root/begun") as events:
        running = threading.Thread(target=run)
        running.start()
        next(events)
    Sandbox.connect(sandbox.sandbox_id).kill()
    running.join(60)
    assert isinstance(told[0], Exception)


def test_pause_and_resume(create):
    sandbox = create()
    sandbox.files.write("/home/user/kept.txt", "kept")
    sandbox.pause()
    assert sandbox.get_info()["state"] == "paused"
    again = Sandbox.connect(sandbox.sandbox_id)
    assert again.files.read("/home/user/kept.txt") == "kept"
    sandbox.pause()
    sandbox.resume(timeout=300)
    assert sandbox.files.read("/home/user/kept.txt") == "kept"


def test_windows_without_an_end(create):
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
    for wrong in (0, -2):
        with pytest.raises(Exception, match="400|imeout"):
            Sandbox.connect(sandbox.sandbox_id, timeout=wrong)


def test_snapshots_clones_and_rollback(create):
    sandbox = create()
    sandbox.files.write("/home/user/then.txt", "then")
    keeper = sandbox.commands.run("cat /proc/sys/kernel/random/boot_id").stdout
    snapshot = sandbox.create_snapshot(name="cube-" + uuid.uuid4().hex[:8])
    listed, _ = Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id)
    assert snapshot.snapshot_id in [one.snapshot_id for one in listed]
    sandbox.files.write("/home/user/then.txt", "now")
    told = sandbox.rollback(snapshot.snapshot_id)
    assert (told["sandboxID"], told["snapshotID"]) == (sandbox.sandbox_id, snapshot.snapshot_id)
    assert told["status"] and told["operationID"]
    assert sandbox.files.read("/home/user/then.txt") == "then"
    assert sandbox.commands.run("cat /proc/sys/kernel/random/boot_id").stdout == keeper
    with pytest.raises(Exception):
        create().rollback(snapshot.snapshot_id)
    clones = sandbox.clone(2)
    try:
        assert [one.files.read("/home/user/then.txt") for one in clones] == ["then", "then"]
    finally:
        for clone in clones:
            clone.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id)
    with pytest.raises(Exception) as gone:
        Sandbox.delete_snapshot(snapshot.snapshot_id)
    assert type(gone.value).__name__ == "TemplateNotFoundError"


def test_auto_pause_and_auto_resume(create):
    sandbox = create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.files.write("/home/user/kept.txt", "kept")
    sandbox.set_timeout(0)
    end = time.monotonic() + 60
    while sandbox.get_info()["state"] != "paused":
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sandbox.files.read("/home/user/kept.txt") == "kept"
    assert sandbox.get_info()["state"] == "running"


def test_private_traffic(create):
    sandbox = create(network={"allow_public_traffic": False})
    assert sandbox.traffic_access_token
    assert sandbox.commands.run("echo in").stdout == "in\n"
    proxy = f"http://{os.environ['CUBE_PROXY_NODE_IP']}:{os.environ['CUBE_PROXY_PORT_HTTP']}/"
    named = {"Host": sandbox.get_host(8000)}
    refused = requests.get(proxy, headers=named, timeout=60)
    assert refused.status_code == 403
    let_in = requests.get(
        proxy, headers=named | {"cube-traffic-access-token": sandbox.traffic_access_token}, timeout=60
    )
    assert let_in.status_code == 502 and let_in.json()["port"] == 8000


def test_what_is_not_there(create):
    with pytest.raises(Exception) as missing:
        Sandbox.connect("inosuchsandbox000000")
    assert type(missing.value).__name__ == "SandboxNotFoundError"
    with pytest.raises(Exception) as missing:
        Sandbox.create("no-such-template")
    assert type(missing.value).__name__ == "TemplateNotFoundError"
