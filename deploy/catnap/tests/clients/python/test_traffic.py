"""Requests at a sandbox's own ports."""

import http.client
import json
import os
import ssl
import urllib.parse

import pytest
from conftest import TLS, needs_names, until
from e2b import SandboxState

# The host name, and the head of the request. Perl without a module starts soon, also in a slow guest.
SERVE = r"""exec perl -e '
socket(S, 2, 1, 0); setsockopt(S, 1, 2, 1); bind(S, pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)) or die; listen(S, 9);
while (accept(C, S)) {
    $head = ""; while (<C>) { last if /^\r?$/; $head .= $_ }
    $name = `cat /etc/hostname`; $body = $name . $head;
    print C "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body"; close C;
}'"""


def get(sandbox, port, path="/", headers=None, method="GET"):
    """A request by name over TLS, by headers else; what came back."""
    headers = dict(headers or {})
    if TLS:
        host, _, at = sandbox.get_host(port).partition(":")
        context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        connection = http.client.HTTPSConnection(host, int(at or 443), timeout=90, context=context)
    else:
        address = urllib.parse.urlparse(os.environ["E2B_SANDBOX_URL"])
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=90)
        headers |= {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(port)}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


@pytest.fixture(scope="module")
def server(shared):
    serving = shared.commands.run(SERVE, background=True, timeout=0)
    until(lambda: get(shared, 8000)[0] == 200)
    yield shared
    serving.kill()


def test_a_server_in_the_guest_is_reached(server):
    assert get(server, 8000)[1].splitlines()[0] == server.sandbox_id


def test_a_server_of_the_other_family_is_reached(shared):
    other = SERVE.replace("socket(S, 2,", "socket(S, 10,")
    other = other.replace('pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)', 'pack("S n N x15 C N", 10, 8001, 0, 1, 0)')
    serving = shared.commands.run(other, background=True, timeout=0)
    until(lambda: get(shared, 8001)[0] == 200)
    serving.kill()


def test_a_port_that_is_not_open_is_told_from_a_sandbox_that_is_not_there(server):
    status, body = get(server, 3210)
    assert (status, json.loads(body)) == (
        502,
        {
            "sandboxId": server.sandbox_id,
            "message": "The sandbox is running but port is not open",
            "port": 3210,
            "code": 502,
        },
    )


def test_the_agents_own_paths_are_hidden(server):
    for path in ("/init", "/freeze", "//init", "/x/../unfreeze"):
        status, body = get(server, 49983, path, method="POST")
        assert status == 404, (path, body)
        assert "reserved" in json.loads(body)["message"]


def test_private_traffic_needs_its_token_before_anything_is_woken(create):
    sandbox = create(
        network={"allow_public_traffic": False},
        lifecycle={"on_timeout": "pause", "auto_resume": True},
    )
    token = sandbox.traffic_access_token
    assert token
    serving = sandbox.commands.run(SERVE, background=True, timeout=0)
    right = {"e2b-traffic-access-token": token}
    until(lambda: get(sandbox, 8000, "/", right)[0] == 200)
    for given, answer in (({}, "is missing"), ({"e2b-traffic-access-token": "x" + token}, "is invalid")):
        status, body = get(sandbox, 8000, "/", given)
        assert status == 403 and answer in body
    serving.disconnect()
    sandbox.pause()
    for given in ({}, {"e2b-traffic-access-token": "x" + token}):
        status, body = get(sandbox, 8000, "/", given)
        assert status == 403 and "can't be resumed" in body
    assert sandbox.get_info().state == SandboxState.PAUSED
    assert get(sandbox, 8000, "/", {"cube-traffic-access-token": token})[0] == 200
    assert sandbox.get_info().state == SandboxState.RUNNING


def test_a_host_can_be_masked(create):
    sandbox = create(network={"mask_request_host": "inside.example:${PORT}"})
    sandbox.commands.run(SERVE, background=True, timeout=0)
    until(lambda: get(sandbox, 8000)[0] == 200)
    seen = get(sandbox, 8000)[1].lower()
    assert "host: inside.example:8000" in seen.splitlines()
    assert "x-forwarded-host: " in seen


@needs_names
def test_a_page_is_shown_to_a_browser(server):
    status, body = get(server, 3210, headers={"User-Agent": "Mozilla/5.0 Firefox/140.0", "Accept": "text/html"})
    assert status == 502 and body.startswith("<html") and "Closed Port Error" in body
