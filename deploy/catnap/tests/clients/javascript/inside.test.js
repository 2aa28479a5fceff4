// Processes, files and terminals.

import { before, test } from 'node:test'
import assert from 'node:assert/strict'
import { CommandExitError, FilesystemEventType, NotFoundError, TimeoutError } from 'e2b'
import { TLS, create, waitUntil } from './sandboxes.js'

let shared

before(async () => {
  shared = await create('base', { timeoutMs: 3_000_000, envs: { COLOUR: 'blue' } })
})

test('commands return output and exit codes [short]', async () => {
  const result = await shared.commands.run('echo "$COLOUR $SHAPE $PWD"; id -un; echo err >&2', { envs: { SHAPE: 'round' } })
  assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['blue round /home/user\nuser\n', 'err\n', 0])
  await assert.rejects(shared.commands.run('exit 3'), (error) => error instanceof CommandExitError && error.exitCode === 3)
  assert.equal((await shared.commands.run('id -un; pwd', { user: 'root', cwd: '/tmp' })).stdout, 'root\n/tmp\n')
})

test('stdin is forwarded until closed, and invalid UTF-8 is replaced', async () => {
  const cat = await shared.commands.run('cat', { background: true, stdin: true })
  await shared.commands.sendStdin(cat.pid, 'one\n')
  await shared.commands.closeStdin(cat.pid)
  assert.equal((await cat.wait()).stdout, 'one\n')
  const out = (await shared.commands.run("printf '日%.0s' {1..6000}; printf '\\xff'")).stdout
  assert.equal(out, '日'.repeat(6000) + '\ufffd')
})

test('a process continues after a disconnect, and a timeout kills it', async () => {
  const loop = "trap 'echo done; exit 0' USR1; echo started; while :; do sleep 0.2; done"
  let started = false
  const process = await shared.commands.run(loop, { background: true, timeoutMs: 0, onStdout: () => (started = true) })
  await waitUntil(() => started)
  await process.disconnect()
  const reconnected = await shared.commands.connect(process.pid, { timeoutMs: 60_000 })
  await shared.commands.run(`kill -USR1 ${process.pid}`)
  assert.equal((await reconnected.wait()).stdout, 'done\n')
  assert.equal(await shared.commands.kill(4_000_000), false)
  await assert.rejects(shared.commands.run('sleep 3600', { timeoutMs: 3000 }), TimeoutError)
})

test('output is streamed', async () => {
  const output = []
  const command = 'echo one; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo two'
  const running = await shared.commands.run(command, { background: true, timeoutMs: 0, onStdout: (text) => output.push(text) })
  await waitUntil(() => output.length > 0)
  assert.deepEqual(output, ['one\n'])
  await shared.files.write('/tmp/go', '')
  assert.equal((await running.wait()).stdout, 'one\ntwo\n')
})

test('a sandbox kill ends running commands', async () => {
  const sandbox = await create()
  const sleeper = await sandbox.commands.run('sleep 3600', { background: true, timeoutMs: 0 })
  await sandbox.kill()
  await assert.rejects(sleeper.wait(), /killed or reached its end of life/)
})

test('files are written, listed, renamed and removed [short]', async () => {
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
  assert.deepEqual(written.map((file) => file.name), ['x', 'y'])
  const listed = await shared.files.list(folder, { depth: 2 })
  assert.deepEqual(listed.map((file) => file.path.slice(folder.length + 1)), ['b', 'deep', 'deep/a.txt', 'x', 'y'])
  const info = await shared.files.getInfo(`${folder}/x`)
  assert.deepEqual([info.name, info.size, info.owner, info.permissions], ['x', 1, 'user', '-rw-r--r--'])
  await shared.files.rename(`${folder}/x`, `${folder}/z`)
  assert.equal(await shared.files.exists(`${folder}/x`), false)
  await assert.rejects(shared.files.read(`${folder}/x`), NotFoundError)
  await shared.files.remove(folder)
  assert.equal(await shared.files.exists(folder), false)
})

test('file metadata and compressed bodies are stored', async () => {
  const name = '/home/user/labelled.txt'
  await shared.files.write(name, 'text', { metadata: { kind: 'note' }, gzip: true })
  assert.deepEqual((await shared.files.getInfo(name)).metadata, { kind: 'note' })
  assert.equal(await shared.files.read(name, { gzip: true }), 'text')
  const stream = await shared.files.read(name, { format: 'stream' })
  assert.equal(await new Response(stream).text(), 'text')
  assert.equal(await (await shared.files.read(name, { format: 'blob' })).text(), 'text')
})

test('a recursive watch reports changes in order', async () => {
  const folder = '/home/user/watched'
  await shared.files.makeDir(folder)
  const events = []
  const watch = await shared.files.watchDir(folder, (event) => void events.push(event), { recursive: true })
  await shared.files.write(`${folder}/a`, 'x')
  await waitUntil(() => events.some((event) => event.type === FilesystemEventType.WRITE))
  assert.deepEqual(
    events.filter((event) => event.name === 'a').map((event) => event.type),
    [FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE],
  )
  await shared.files.makeDir(`${folder}/new`)
  await waitUntil(() => events.some((event) => event.name === 'new'))
  await shared.files.write(`${folder}/new/b`, 'x')
  await waitUntil(() => events.some((event) => event.name === 'new/b'))
  await watch.stop()
})

test('a terminal echoes, resizes and is killed', async () => {
  let output = ''
  const decoder = new TextDecoder()
  const terminal = await shared.pty.create({ cols: 80, rows: 24, timeoutMs: 120_000, onData: (data) => (output += decoder.decode(data)) })
  const type = (text) => shared.pty.sendInput(terminal.pid, new TextEncoder().encode(text))
  await type('stty size; echo $TERM-$((40 + 2))\n')
  await waitUntil(() => output.includes('xterm-256color-42') && output.includes('24 80'))
  await shared.pty.resize(terminal.pid, { cols: 100, rows: 30 })
  await type('stty size; echo re-$((40 + 2))\n')
  await waitUntil(() => output.includes('re-42') && output.includes('30 100'))
  assert.equal(await shared.pty.kill(terminal.pid), true)
})

test('signed URLs need no token', { skip: !TLS && 'needs a host name for each sandbox' }, async () => {
  const name = '/home/user/signed.txt'
  const form = new FormData()
  form.append('file', new Blob(['signed']), 'signed.txt')
  const put = await fetch(await shared.uploadUrl(name, { useSignatureExpiration: 120_000 }), { method: 'POST', body: form })
  assert.equal(put.status, 200)
  const url = await shared.downloadUrl(name, { useSignatureExpiration: 120_000 })
  assert.equal(await (await fetch(url)).text(), 'signed')
  assert.equal((await fetch(url.replace('signature=v1_', 'signature=v1_x'))).status, 401)
})

test('a closed port is 502', { skip: !TLS && 'needs a host name for each sandbox' }, async () => {
  const response = await fetch(`https://${shared.getHost(3210)}/`)
  assert.equal(response.status, 502)
  assert.equal((await response.json()).message, 'The sandbox is running but port is not open')
})
