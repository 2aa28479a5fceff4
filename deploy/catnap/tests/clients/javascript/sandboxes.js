// Sandboxes of the tests. The client reads the address of the gateway from the environment.

import { after } from 'node:test'
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { Sandbox } from 'e2b'

/** Each sandbox has a host name, over TLS. Otherwise all requests go to one plain address, with routing headers. */
export const TLS = process.env.CATNAP_TRANSPORT === 'tls'

const created = []

/** Creates a sandbox that is killed after the tests. */
export async function create(template, options = {}) {
  const sandbox = await Sandbox.create(template ?? 'base', { timeoutMs: 300_000, ...options })
  created.push(sandbox)
  return sandbox
}

after(async () => {
  for (const sandbox of created) await sandbox.kill()
})

/** Polls a condition, and returns its value once it is true. */
export async function waitUntil(condition, timeout = 60_000) {
  const end = Date.now() + timeout
  for (;;) {
    const value = await condition()
    if (value) return value
    assert.ok(Date.now() < end, 'timed out')
    await sleep(200)
  }
}
