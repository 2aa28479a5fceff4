// Creation, lists, pauses, resumes, deadlines, forks, snapshots and metrics.

import { test } from 'node:test'
import assert from 'node:assert/strict'
import { Sandbox, NotFoundError } from 'e2b'
import { create, waitUntil } from './sandboxes.js'

const BOOT = '/proc/sys/kernel/random/boot_id'

test('info and list match the creation, and a kill removes the sandbox [short]', async () => {
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

test('the list is paged, and filtered by state and metadata', async () => {
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
    const sandboxes = await Sandbox.list({ query: { metadata, state: [state] } }).nextItems()
    return sandboxes.map((sandbox) => sandbox.sandboxId)
  }
  assert.deepEqual(await inState('paused'), [first.sandboxId])
  assert.deepEqual(await inState('running'), [second.sandboxId])
})

test('a pause keeps memory and processes [short]', async () => {
  const sandbox = await create()
  await sandbox.files.write('file.txt', 'text')
  const boot = await sandbox.files.read(BOOT)
  const sleeper = await sandbox.commands.run('sleep 3600', { background: true, timeoutMs: 0 })
  await sleeper.disconnect()
  await sandbox.pause()
  assert.equal((await sandbox.getInfo()).state, 'paused')
  assert.equal(await sandbox.isRunning(), false)
  await sandbox.connect({ timeoutMs: 300_000 })
  assert.equal(await sandbox.files.read('file.txt'), 'text')
  assert.equal(await sandbox.files.read(BOOT), boot)
  assert.ok((await sandbox.commands.list()).some((process) => process.pid === sleeper.pid))
})

test('a disk-only pause keeps files and boots', async () => {
  const sandbox = await create()
  await sandbox.files.write('file.txt', 'text')
  const boot = await sandbox.files.read(BOOT)
  await sandbox.pause({ keepMemory: false })
  assert.equal(await sandbox.isRunning(), false)
  await sandbox.connect({ timeoutMs: 300_000, requestTimeoutMs: 120_000 })
  assert.equal(await sandbox.files.read('file.txt'), 'text')
  assert.notEqual(await sandbox.files.read(BOOT), boot)
})

test('an expired sandbox is paused, and requests wake it', async () => {
  const sandbox = await create('base', { lifecycle: { onTimeout: 'pause', autoResume: true } })
  await sandbox.files.write('file.txt', 'text')
  await sandbox.setTimeout(0)
  await waitUntil(async () => (await sandbox.getInfo()).state === 'paused')
  assert.equal(await sandbox.files.read('file.txt'), 'text')
  assert.equal((await sandbox.getInfo()).state, 'running')
})

test('forks and snapshots continue from their origin', async () => {
  const origin = await create()
  await origin.files.write('file.txt', 'before')
  const [fork] = await origin.fork({ count: 1, timeoutMs: 300_000 })
  assert.equal(await fork.files.read('file.txt'), 'before')
  assert.notEqual(fork.sandboxId, origin.sandboxId)
  await fork.kill()
  const snapshot = await origin.createSnapshot()
  const listed = await Sandbox.listSnapshots({ sandboxId: origin.sandboxId }).nextItems()
  assert.deepEqual(listed.map((it) => it.snapshotId), [snapshot.snapshotId])
  await origin.files.write('file.txt', 'after')
  const other = await create(snapshot.snapshotId)
  assert.equal(await other.files.read('file.txt'), 'before')
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
  assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
})

test('metrics are available soon', async () => {
  const sandbox = await create()
  const [first] = await waitUntil(async () => {
    const metrics = await sandbox.getMetrics()
    return metrics.length > 0 && metrics
  })
  assert.ok(first.cpuCount >= 1 && first.memUsed > 0 && first.memUsed < first.memTotal)
})
