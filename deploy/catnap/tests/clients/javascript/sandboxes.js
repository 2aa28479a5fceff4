// Sandboxes for the tests. Which gateway, and how it is reached, is in the environment that the client reads.

import { after } from 'node:test'
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { Sandbox } from 'e2b'

/** Names are resolved and TLS is spoken. Otherwise everything goes to one plain address, by headers. */
export const TLS = process.env.CATNAP_MODE === 'tls'

const made = []

/** A sandbox of the test's own; gone when the file is done. */
export async function create(template, options = {}) {
  const sandbox = await Sandbox.create(template ?? 'base', { timeoutMs: 300_000, ...options })
  made.push(sandbox)
  return sandbox
}

after(async () => {
  for (const sandbox of made) await sandbox.kill()
})

/** Waits for something that happens by itself. */
export async function until(what, limit = 60_000) {
  const end = Date.now() + limit
  for (;;) {
    const found = await what()
    if (found) return found
    assert.ok(Date.now() < end, 'it did not happen')
    await sleep(200)
  }
}
