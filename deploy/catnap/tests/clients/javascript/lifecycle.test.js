// Sleeping and waking, time windows, forks and snapshots.

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Sandbox, NotFoundError } from 'e2b'
import { TLS, create, until } from './sandboxes.js'

const BOOT = '/proc/sys/kernel/random/boot_id'

test('a sandbox is what was asked for, in lists and by name', async () => {
  const mark = `${Math.random()}`
  const metadata = { 'a b': 'c&d=e', mark }
  const sandbox = await create('base', { metadata, timeoutMs: 200_000 })
  const info = await sandbox.getInfo()
  assert.equal(info.sandboxId, sandbox.sandboxId)
  assert.deepEqual(info.metadata, metadata)
  const pages = Sandbox.list({ query: { metadata }, limit: 1 })
  const [listed] = await pages.nextItems()
  assert.equal(listed.sandboxId, sandbox.sandboxId)
  assert.equal(listed.startedAt.getTime(), info.startedAt.getTime())
  assert.equal(pages.hasNext, false)
  const before = info.endAt.getTime()
  await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 20_000 })
  assert.equal((await sandbox.getInfo()).endAt.getTime(), before)
  await sandbox.setTimeout(50_000)
  assert.ok((await sandbox.getInfo()).endAt.getTime() < before)
  assert.equal(await sandbox.kill(), true)
  assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
  assert.equal(await sandbox.isRunning(), false)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), NotFoundError)
})

test('lists come in pages, and by state and label', async () => {
  const mark = `${Math.random()}`
  const metadata = { mark }
  const [first, second] = [await create('base', { metadata }), await create('base', { metadata })]
  const pages = Sandbox.list({ query: { metadata }, limit: 1 })
  const ids = []
  while (pages.hasNext) {
    const page = await pages.nextItems()
    assert.equal(page.length, 1)
    ids.push(page[0].sandboxId)
  }
  assert.deepEqual(ids, [second.sandboxId, first.sandboxId])
  await first.pause()
  const inState = async (state) => {
    const found = await Sandbox.list({ query: { metadata, state: [state] } }).nextItems()
    return found.map((sandbox) => sandbox.sandboxId)
  }
  assert.deepEqual(await inState('paused'), [first.sandboxId])
  assert.deepEqual(await inState('running'), [second.sandboxId])
})

test('a pause keeps memory and processes', async () => {
  const sandbox = await create()
  await sandbox.files.write('kept.txt', 'kept')
  const boot = await sandbox.files.read(BOOT)
  const sleeper = await sandbox.commands.run('sleep 3600', { background: true, timeoutMs: 0 })
  await sleeper.disconnect()
  await sandbox.pause()
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal(await sandbox.isRunning(), false)
  await sandbox.connect({ timeoutMs: 300_000 })
  assert.equal(await sandbox.files.read('kept.txt'), 'kept')
  assert.equal(await sandbox.files.read(BOOT), boot)
  assert.ok((await sandbox.commands.list()).some((process) => process.pid === sleeper.pid))
})

test('a pause without memory keeps the disk', { skip: !TLS && 'one boot a client is enough' }, async () => {
  const sandbox = await create()
  await sandbox.files.write('kept.txt', 'kept')
  const boot = await sandbox.files.read(BOOT)
  await sandbox.pause({ keepMemory: false })
  assert.equal(await sandbox.isRunning(), false)
  await sandbox.connect({ timeoutMs: 300_000, requestTimeoutMs: 120_000 })
  assert.equal(await sandbox.files.read('kept.txt'), 'kept')
  assert.notEqual(await sandbox.files.read(BOOT), boot)
})

test('at its end a sandbox is paused, and a request wakes it', async () => {
  const sandbox = await create('base', { lifecycle: { onTimeout: 'pause', autoResume: true } })
  await sandbox.files.write('kept.txt', 'kept')
  await sandbox.setTimeout(0)
  await until(async () => (await sandbox.getInfo()).state === 'paused')
  assert.equal(await sandbox.files.read('kept.txt'), 'kept')
  assert.equal((await sandbox.getInfo()).state, 'running')
})

test('forks and snapshots go on where their origin was', async () => {
  const origin = await create()
  await origin.files.write('then.txt', 'then')
  const [fork] = await origin.fork({ count: 1, timeoutMs: 300_000 })
  assert.equal(await fork.files.read('then.txt'), 'then')
  assert.notEqual(fork.sandboxId, origin.sandboxId)
  await fork.kill()
  const snapshot = await origin.createSnapshot()
  const listed = await Sandbox.listSnapshots({ sandboxId: origin.sandboxId }).nextItems()
  assert.deepEqual(listed.map((one) => one.snapshotId), [snapshot.snapshotId])
  await origin.files.write('then.txt', 'now')
  const other = await create(snapshot.snapshotId)
  assert.equal(await other.files.read('then.txt'), 'then')
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
})

test('figures of the guest come soon', async () => {
  const sandbox = await create()
  const [first] = await until(async () => {
    const found = await sandbox.getMetrics()
    return found.length > 0 && found
  })
  assert.ok(first.cpuCount >= 1 && first.memUsed > 0 && first.memUsed < first.memTotal)
})
