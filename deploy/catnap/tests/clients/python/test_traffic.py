"""Requests to ports of a sandbox."""

import http.client
import json
import os
import ssl
import urllib.parse

import pytest
from conftest import TLS, needs_names, wait_until
from e2b import SandboxState

# Responds with the host name and the head of the request. Perl without modules starts fast.
SERVE = r"""exec perl -e '
socket(S, 2, 1, 0); setsockopt(S, 1, 2, 1); bind(S, pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)) or die; listen(S, 9);
while (accept(C, S)) {
    $head = ""; while (<C>) { last if /^\r?$/; $head .= $_ }
    $name = `cat /etc/hostname`; $body = $name . $head;
    print C "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body"; close C;
}'"""


def get(sandbox, port, path="/", headers=None, method="GET"):
    """Sends a request, by host name or by headers. Returns the status and body of the response."""
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
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


@pytest.fixture(scope="module")
def server(shared):
    serving = shared.commands.run(SERVE, background=True, timeout=0)
    wait_until(lambda: get(shared, 8000)[0] == 200)
    yield shared
    serving.kill()


@pytest.mark.short
def test_server_in_the_guest_is_reachable(server):
    assert get(server, 8000)[1].splitlines()[0] == server.sandbox_id


def test_ipv6_server_is_reachable(shared):
    ipv6 = SERVE.replace("socket(S, 2,", "socket(S, 10,")
    ipv6 = ipv6.replace('pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)', 'pack("S n N x15 C N", 10, 8001, 0, 1, 0)')
    serving = shared.commands.run(ipv6, background=True, timeout=0)
    wait_until(lambda: get(shared, 8001)[0] == 200)
    serving.kill()


def test_closed_port_is_502_with_its_number(server):
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


def test_host_only_paths_are_404(server):
    for path in ("/init", "/freeze", "//init", "/x/../unfreeze"):
        status, body = get(server, 49983, path, method="POST")
        assert status == 404, (path, body)
        assert "reserved" in json.loads(body)["message"]


def test_traffic_token_is_checked_before_the_wake(create):
    sandbox = create(
        network={"allow_public_traffic": False},
        lifecycle={"on_timeout": "pause", "auto_resume": True},
    )
    token = sandbox.traffic_access_token
    assert token
    serving = sandbox.commands.run(SERVE, background=True, timeout=0)
    valid = {"e2b-traffic-access-token": token}
    wait_until(lambda: get(sandbox, 8000, "/", valid)[0] == 200)
    for headers, message in (({}, "is missing"), ({"e2b-traffic-access-token": "x" + token}, "is invalid")):
        status, body = get(sandbox, 8000, "/", headers)
        assert status == 403 and message in body
    serving.disconnect()
    sandbox.pause()
    for headers in ({}, {"e2b-traffic-access-token": "x" + token}):
        status, body = get(sandbox, 8000, "/", headers)
        assert status == 403 and "can't be resumed" in body
    assert sandbox.get_info().state == SandboxState.PAUSED
    assert get(sandbox, 8000, "/", {"cube-traffic-access-token": token})[0] == 200
    assert sandbox.get_info().state == SandboxState.RUNNING


def test_request_host_is_masked(create):
    sandbox = create(network={"mask_request_host": "inside.example:${PORT}"})
    sandbox.commands.run(SERVE, background=True, timeout=0)
    wait_until(lambda: get(sandbox, 8000)[0] == 200)
    received = get(sandbox, 8000)[1].lower()
    assert "host: inside.example:8000" in received.splitlines()
    assert "x-forwarded-host: " in received


@needs_names
def test_browser_gets_an_error_page(server):
    status, body = get(server, 3210, headers={"User-Agent": "Mozilla/5.0 Firefox/140.0", "Accept": "text/html"})
    assert status == 502 and body.startswith("<html") and "Closed Port Error" in body
