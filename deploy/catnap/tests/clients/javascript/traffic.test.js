// Requests at a sandbox's own ports.

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { TLS, create, until } from './sandboxes.js'

// Answers with the head it was sent. Perl without a module starts soon, also in a slow guest.
const SERVE = `exec perl -e '
socket(S, 2, 1, 0); setsockopt(S, 1, 2, 1); bind(S, pack("S n C4 x8", 2, 8000, 127, 0, 0, 1)) or die; listen(S, 9);
while (accept(C, S)) {
    $head = ""; while (<C>) { last if /^\\r?$/; $head .= $_ }
    print C "HTTP/1.1 200 OK\\r\\nContent-Length: " . length($head) . "\\r\\nConnection: close\\r\\n\\r\\n$head"; close C;
}'`

/** A request by name over TLS, by headers else. */
async function get(sandbox, port, headers = {}) {
  if (TLS) return fetch(`https://${sandbox.getHost(port)}/`, { headers })
  const named = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': String(port) }
  return fetch(process.env.E2B_SANDBOX_URL, { headers: { ...headers, ...named } })
}

async function serve(sandbox, headers) {
  const serving = await sandbox.commands.run(SERVE, { background: true, timeoutMs: 0 })
  await until(async () => (await get(sandbox, 8000, headers)).status === 200)
  return serving
}

test('private traffic needs its token before anything is woken, and the guest does not see it', async () => {
  const sandbox = await create('base', {
    network: { allowPublicTraffic: false },
    lifecycle: { onTimeout: 'pause', autoResume: true },
  })
  const right = { 'e2b-traffic-access-token': sandbox.trafficAccessToken }
  const serving = await serve(sandbox, right)
  assert.ok(!(await (await get(sandbox, 8000, right)).text()).includes(sandbox.trafficAccessToken))
  assert.equal((await get(sandbox, 8000)).status, 403)
  await serving.disconnect()
  await sandbox.pause()
  for (const headers of [{}, { 'e2b-traffic-access-token': 'wrong' }]) {
    const refused = await get(sandbox, 8000, headers)
    assert.equal(refused.status, 403)
    assert.match((await refused.json()).message, /can't be resumed/)
  }
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal((await get(sandbox, 8000, right)).status, 200)
  assert.equal((await sandbox.getInfo()).state, 'running')
})

test('a host can be masked', async () => {
  const sandbox = await create('base', { network: { maskRequestHost: 'inside.example:${PORT}' } })
  await serve(sandbox)
  const seen = (await (await get(sandbox, 8000)).text()).toLowerCase().split('\r\n')
  assert.ok(seen.includes('host: inside.example:8000'), seen.join())
})

test('a port that is not open is told from a sandbox that is not there', async () => {
  const sandbox = await create()
  const closed = await get(sandbox, 3210)
  assert.deepEqual([closed.status, (await closed.json()).port], [502, 3210])
  await sandbox.kill()
  const gone = await get(sandbox, 3210)
  assert.deepEqual([gone.status, (await gone.json()).message], [502, 'The sandbox was not found'])
})
