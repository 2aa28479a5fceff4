// Requests to ports of a sandbox.

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { TLS, create, waitUntil } from './sandboxes.js'

// Responds with the head of the request. Perl without modules starts fast.
const SERVE = `exec perl -e '
socket(S, 2, 1, 0); setsockopt(S, 1, 2, 1); bind(S, pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)) or die; listen(S, 9);
while (accept(C, S)) {
    $head = ""; while (<C>) { last if /^\\r?$/; $head .= $_ }
    print C "HTTP/1.1 200 OK\\r\\nContent-Length: " . length($head) . "\\r\\nConnection: close\\r\\n\\r\\n$head"; close C;
}'`

/** Sends a request, by host name or by headers. */
async function get(sandbox, port, headers = {}) {
  if (TLS) return fetch(`https://${sandbox.getHost(port)}/`, { headers })
  const named = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': String(port) }
  return fetch(process.env.E2B_SANDBOX_URL, { headers: { ...headers, ...named } })
}

async function serve(sandbox, headers) {
  const serving = await sandbox.commands.run(SERVE, { background: true, timeoutMs: 0 })
  await waitUntil(async () => (await get(sandbox, 8000, headers)).status === 200)
  return serving
}

test('the traffic token is checked before the wake, and not forwarded', async () => {
  const sandbox = await create('base', {
    network: { allowPublicTraffic: false },
    lifecycle: { onTimeout: 'pause', autoResume: true },
  })
  const valid = { 'e2b-traffic-access-token': sandbox.trafficAccessToken }
  const serving = await serve(sandbox, valid)
  assert.ok(!(await (await get(sandbox, 8000, valid)).text()).includes(sandbox.trafficAccessToken))
  assert.equal((await get(sandbox, 8000)).status, 403)
  await serving.disconnect()
  await sandbox.pause()
  for (const headers of [{}, { 'e2b-traffic-access-token': 'wrong' }]) {
    const refused = await get(sandbox, 8000, headers)
    assert.equal(refused.status, 403)
    assert.match((await refused.json()).message, /can't be resumed/)
  }
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal((await get(sandbox, 8000, valid)).status, 200)
  assert.equal((await sandbox.getInfo()).state, 'running')
})

test('the request host is masked [short]', async () => {
  const sandbox = await create('base', { network: { maskRequestHost: 'inside.example:${PORT}' } })
  await serve(sandbox)
  const received = (await (await get(sandbox, 8000)).text()).toLowerCase().split('\r\n')
  assert.ok(received.includes('host: inside.example:8000'), received.join())
})

test('a closed port and a missing sandbox are distinct 502s', async () => {
  const sandbox = await create()
  const closed = await get(sandbox, 3210)
  assert.deepEqual([closed.status, (await closed.json()).port], [502, 3210])
  await sandbox.kill()
  const gone = await get(sandbox, 3210)
  assert.deepEqual([gone.status, (await gone.json()).message], [502, 'The sandbox was not found'])
})
