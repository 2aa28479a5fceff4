// Processes, files and terminals.

import { before, test } from 'node:test'
import assert from 'node:assert/strict'
import { CommandExitError, FilesystemEventType, NotFoundError, TimeoutError } from 'e2b'
import { TLS, create, until } from './sandboxes.js'

let shared

before(async () => {
  shared = await create('base', { timeoutMs: 3_000_000, envs: { COLOUR: 'blue' } })
})

test('output, exit codes, environment, user and directory', async () => {
  const done = await shared.commands.run('echo "$COLOUR $SHAPE $PWD"; id -un; echo err >&2', { envs: { SHAPE: 'round' } })
  assert.deepEqual([done.stdout, done.stderr, done.exitCode], ['blue round /home/user\nuser\n', 'err\n', 0])
  await assert.rejects(shared.commands.run('exit 3'), (error) => error instanceof CommandExitError && error.exitCode === 3)
  assert.equal((await shared.commands.run('id -un; pwd', { user: 'root', cwd: '/tmp' })).stdout, 'root\n/tmp\n')
})

test('input, its end, and broken text', async () => {
  const cat = await shared.commands.run('cat', { background: true, stdin: true })
  await shared.commands.sendStdin(cat.pid, 'one\n')
  await shared.commands.closeStdin(cat.pid)
  assert.equal((await cat.wait()).stdout, 'one\n')
  const out = (await shared.commands.run("printf '日%.0s' {1..6000}; printf '\\xff'")).stdout
  assert.equal(out, '日'.repeat(6000) + '\ufffd')
})

test('processes are found, left, found again and ended', async () => {
  const loop = "trap 'echo done; exit 0' USR1; echo begun; while :; do sleep 0.2; done"
  let begun = false
  const counting = await shared.commands.run(loop, { background: true, timeoutMs: 0, onStdout: () => (begun = true) })
  await until(() => begun)
  await counting.disconnect()
  const again = await shared.commands.connect(counting.pid, { timeoutMs: 60_000 })
  await shared.commands.run(`kill -USR1 ${counting.pid}`)
  assert.equal((await again.wait()).stdout, 'done\n')
  assert.equal(await shared.commands.kill(4_000_000), false)
  await assert.rejects(shared.commands.run('sleep 3600', { timeoutMs: 3000 }), TimeoutError)
})

test('output comes as it is written', async () => {
  const seen = []
  const command = 'echo one; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo two'
  const running = await shared.commands.run(command, { background: true, timeoutMs: 0, onStdout: (text) => seen.push(text) })
  await until(() => seen.length > 0)
  assert.deepEqual(seen, ['one\n'])
  await shared.files.write('/tmp/go', '')
  assert.equal((await running.wait()).stdout, 'one\ntwo\n')
})

test('a kill of the sandbox is told to who listens', async () => {
  const sandbox = await create()
  const sleeper = await sandbox.commands.run('sleep 3600', { background: true, timeoutMs: 0 })
  await sandbox.kill()
  await assert.rejects(sleeper.wait(), /killed or reached its end of life/)
})

test('files', async () => {
  const folder = '/home/user/js'
  assert.equal(await shared.files.makeDir(folder), true)
  assert.equal(await shared.files.makeDir(folder), false)
  const text = 'grün\n'.repeat(1000)
  await shared.files.write(`${folder}/deep/a.txt`, text)
  assert.equal(await shared.files.read(`${folder}/deep/a.txt`), text)
  const bytes = new Uint8Array(100_000).map((_, at) => at)
  await shared.files.write(`${folder}/b`, bytes.buffer)
  assert.deepEqual(await shared.files.read(`${folder}/b`, { format: 'bytes' }), bytes)
  const written = await shared.files.write([
    { path: `${folder}/x`, data: 'x' },
    { path: `${folder}/y`, data: 'y' },
  ])
  assert.deepEqual(written.map((one) => one.name), ['x', 'y'])
  const listed = await shared.files.list(folder, { depth: 2 })
  assert.deepEqual(listed.map((one) => one.path.slice(folder.length + 1)), ['b', 'deep', 'deep/a.txt', 'x', 'y'])
  const info = await shared.files.getInfo(`${folder}/x`)
  assert.deepEqual([info.name, info.size, info.owner, info.permissions], ['x', 1, 'user', '-rw-r--r--'])
  await shared.files.rename(`${folder}/x`, `${folder}/z`)
  assert.equal(await shared.files.exists(`${folder}/x`), false)
  await assert.rejects(shared.files.read(`${folder}/x`), NotFoundError)
  await shared.files.remove(folder)
  assert.equal(await shared.files.exists(folder), false)
})

test('files have labels, and travel packed', async () => {
  const name = '/home/user/labelled.txt'
  await shared.files.write(name, 'text', { metadata: { kind: 'note' }, gzip: true })
  assert.deepEqual((await shared.files.getInfo(name)).metadata, { kind: 'note' })
  assert.equal(await shared.files.read(name, { gzip: true }), 'text')
  const stream = await shared.files.read(name, { format: 'stream' })
  assert.equal(await new Response(stream).text(), 'text')
  assert.equal(await (await shared.files.read(name, { format: 'blob' })).text(), 'text')
})

test('changes are watched', async () => {
  const folder = '/home/user/watched'
  await shared.files.makeDir(folder)
  const seen = []
  const watch = await shared.files.watchDir(folder, (event) => void seen.push(event), { recursive: true })
  await shared.files.write(`${folder}/a`, 'x')
  await until(() => seen.some((event) => event.type === FilesystemEventType.WRITE))
  assert.deepEqual(
    seen.filter((event) => event.name === 'a').map((event) => event.type),
    [FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE],
  )
  await shared.files.makeDir(`${folder}/new`)
  await until(() => seen.some((event) => event.name === 'new'))
  await shared.files.write(`${folder}/new/b`, 'x')
  await until(() => seen.some((event) => event.name === 'new/b'))
  await watch.stop()
})

test('a terminal', async () => {
  let seen = ''
  const decoder = new TextDecoder()
  const terminal = await shared.pty.create({ cols: 80, rows: 24, timeoutMs: 120_000, onData: (data) => (seen += decoder.decode(data)) })
  const type = (text) => shared.pty.sendInput(terminal.pid, new TextEncoder().encode(text))
  await type('stty size; echo $TERM-$((40 + 2))\n')
  await until(() => seen.includes('xterm-256color-42') && seen.includes('24 80'))
  await shared.pty.resize(terminal.pid, { cols: 100, rows: 30 })
  await type('stty size; echo re-$((40 + 2))\n')
  await until(() => seen.includes('re-42') && seen.includes('30 100'))
  assert.equal(await shared.pty.kill(terminal.pid), true)
})

test('signed addresses need no client', { skip: !TLS && 'needs a host name for each sandbox' }, async () => {
  const name = '/home/user/signed.txt'
  const form = new FormData()
  form.append('file', new Blob(['signed']), 'signed.txt')
  const put = await fetch(await shared.uploadUrl(name, { useSignatureExpiration: 120_000 }), { method: 'POST', body: form })
  assert.equal(put.status, 200)
  const url = await shared.downloadUrl(name, { useSignatureExpiration: 120_000 })
  assert.equal(await (await fetch(url)).text(), 'signed')
  assert.equal((await fetch(url.replace('signature=v1_', 'signature=v1_x'))).status, 401)
})

test('a port that is not open', { skip: !TLS && 'needs a host name for each sandbox' }, async () => {
  const answer = await fetch(`https://${shared.getHost(3210)}/`)
  assert.equal(answer.status, 502)
  assert.equal((await answer.json()).message, 'The sandbox is running but port is not open')
})
