'use strict'
// The review of a case: a drawing on the page's own labels, tools, and saving.
// What is drawn are voxels of the block, painted here by index: no orientation is left to any library.

let state = readJson('state')
const place = `aiene ${state.run} ${state.id}`
const labels = new Labels(new ArrayBuffer(352))
const viewer = new Viewer(document.getElementById('stage'), [])
const undo = []
const moment = (time) => `${time.slice(0, 16).replace('T', ' ')} UTC` // of an ISO time that is in UTC
let tool = 'look'
let joins = []
let rejected = {}
let merging = 0
let stroke = null
let unsaved = false
let stale = false
let wanted = 'corrected'

const say = (id, words) => {
  const box = document.getElementById(id)
  box.textContent = words
  box.hidden = !words
}

async function openReview() {
  if (!hasWebGl()) {
    say('told', 'This browser has no WebGL, so nothing can be drawn here.')
    return
  }
  await takeVoxels()
  viewer.onMove = showPlace
  viewer.onChoose = chose
  await viewer.open(await unpack(document.getElementById('ct').textContent), labels)
  show()
  await restore()
  listen()
  window.aiene = { viewer, labels, get state() { return state } } // for tests, and for the curious
  document.body.classList.add('ready')
}

async function takeVoxels() {
  const buffer = await unpack(state.labels)
  const { size, spacing, offset } = niftiHead(buffer)
  Object.assign(labels, { size, spacing, buffer })
  labels.changed(new Uint8Array(buffer.slice(offset)))
}

/** The nodes as the server measured them, and those that are new in the drawing. */
function nodesNow() {
  const known = new Map(state.nodes.map((node) => [node.value, node]))
  const counts = new Map()
  for (const value of labels.values) if (value && value !== PRIMARY) counts.set(value, (counts.get(value) || 0) + 1)
  const mm3 = labels.spacing.reduce((a, b) => a * b, 1)
  return [...counts].sort(([a], [b]) => a - b).map(([value, count]) => known.get(value) || { value, name: `new ${value}`, short: `new ${value}`, kind: 'unknown', mm3: count * mm3, fresh: true })
}

function show() {
  const nodes = nodesNow()
  viewer.nodes = new Map(nodes.map((node) => [node.value, { ...node, key: keyOf(node) }]))
  if (viewer.chosen && viewer.chosen !== PRIMARY && !viewer.nodes.has(viewer.chosen)) viewer.chosen = 0
  const number = (value, digits) => (value === null || value === undefined ? '–' : value.toFixed(digits))
  document.getElementById('nodes').replaceChildren(...nodes.map((node) => {
    const line = document.createElement('tr')
    line.dataset.value = node.value
    line.classList.toggle('chosen', node.value === viewer.chosen)
    const button = document.createElement('button')
    Object.assign(button, { type: 'button', textContent: node.name })
    button.setAttribute('aria-pressed', String(node.value === viewer.chosen))
    const axes = node.long ? `${number(node.long, 1)} x ${number(node.short_axis, 1)}` : '–'
    const cells = ['', node.ene ?? '–', node.pos ?? '–', number(node.mm3, 0), axes, node.side || '–']
    cells.forEach((text, at) => {
      const box = document.createElement('td')
      if (at === 0) box.append(button)
      else box.textContent = text
      const verdict = { ene: 'yes', none: 'no' }[node.kind]
      if (at === 1 && verdict) box.prepend(Object.assign(document.createElement('span'), { className: `chip ${node.kind}`, textContent: verdict }), ' ')
      if (at > 0 && at < 5) box.className = 'num'
      line.append(box)
    })
    line.addEventListener('click', () => pick(node.value))
    return line
  }))
  const figures = [['AI-ENE number', state.blind ? '–' : String(state.count), unsaved ? 'before these strokes' : ''], ['Nodes', String(nodes.length), '']]
  if (state.group) figures.push(['Risk group', state.group.name, state.group.words])
  figures.push(['State', state.status, state.base ? `version ${state.base}` : state.blind ? '' : 'the model’s answer'])
  document.getElementById('figures').replaceChildren(...figures.map(([title, value, note]) => {
    const box = document.createElement('div')
    box.className = /^\d+$|^–$/.test(value) ? 'figure' : 'figure word'
    for (const [tag, text] of [['span', title], ['b', value], ['span', note]]) {
      if (text) box.append(Object.assign(document.createElement(tag), { textContent: text }))
    }
    return box
  }))
  document.getElementById('versions').replaceChildren(...state.versions.map((version) => {
    const line = Object.assign(document.createElement('li'), { textContent: `${version.status}${version.edited ? ', drawn on' : ''}` })
    line.append(Object.assign(document.createElement('small'), { textContent: `${moment(version.time)} ${version.reason}` }))
    return line
  }))
  viewer.drawOver()
}

/** A voxel of a node to look at: the server's, or of a new node its first. */
function keyOf(node) {
  if (node.key && labels.at(node.key) === node.value) return node.key
  const first = labels.values.indexOf(node.value)
  const [nx, ny] = labels.size
  return first < 0 ? null : [first % nx, Math.floor(first / nx) % ny, Math.floor(first / (nx * ny))]
}

function showPlace(voxel) {
  const mm = state.affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3])
  document.getElementById('readout').textContent = `LPS ${mm.map((v) => v.toFixed(1)).join(', ')} mm`
}

function pick(value) {
  if (merging && merging !== value) {
    remember()
    joins.push([merging, value])
    const names = [merging, value].map((one) => viewer.nodes.get(one)?.name)
    merging = 0
    say('doing', `${names.join(' and ')} count as one node from the next save on.`)
    changed()
    return
  }
  viewer.choose(value)
}

function chose(value) {
  if (merging && merging !== value) return pick(value)
  show()
}

// Painting: voxels of one slice, by index.

function spotAt(event) {
  const box = viewer.canvas.getBoundingClientRect()
  const [px, py] = [event.clientX - box.left, event.clientY - box.top]
  for (const [index, tile] of viewer.nv.screenSlices.entries()) {
    if (tile.axCorSag > 2) continue
    const { plane, box: [left, top, width, height], map } = viewer.tileMap(tile, index)
    if (px < left || py < top || px >= left + width || py >= top + height) continue
    const [x0, y0] = map(0, 0)
    const [x1, y1] = map(1, 1)
    const voxel = viewer.voxel()
    const at = [(px - x0) / (x1 - x0), (py - y0) / (y1 - y0)]
    plane.axes.forEach((axis, k) => (voxel[axis] = Math.floor(at[k])))
    return { plane, voxel, at }
  }
  return null
}

function indexOf(voxel) {
  return voxel[0] + labels.size[0] * (voxel[1] + labels.size[1] * voxel[2])
}

function set(voxel, value) {
  if (voxel.some((v, axis) => v < 0 || v >= labels.size[axis])) return
  const at = indexOf(voxel)
  const before = labels.values[at]
  if (before === value || (value && before)) return // what is drawn already is not drawn over
  if (!stroke.old.has(at)) stroke.old.set(at, before)
  labels.values[at] = value
}

function dab(spot) {
  const [u, v] = spot.plane.axes
  const [su, sv] = [labels.spacing[u], labels.spacing[v]]
  const radius = (Number(document.getElementById('pen').value) / 2) * Math.min(...labels.spacing)
  const [ru, rv] = [Math.ceil(radius / su), Math.ceil(radius / sv)]
  for (let b = -rv; b <= rv; b++) {
    for (let a = -ru; a <= ru; a++) {
      if ((a || b) && (a * su) ** 2 + (b * sv) ** 2 > radius ** 2) continue
      const voxel = [...spot.voxel]
      voxel[u] += a
      voxel[v] += b
      set(voxel, stroke.value)
    }
  }
}

function lineTo(spot) {
  const from = stroke.path.at(-1) || spot
  const steps = Math.max(1, ...spot.voxel.map((v, axis) => Math.abs(v - from.voxel[axis])))
  for (let k = 1; k <= steps; k++) {
    dab({ plane: spot.plane, voxel: spot.voxel.map((v, axis) => Math.round(from.voxel[axis] + ((v - from.voxel[axis]) * k) / steps)) })
  }
  stroke.path.push(spot)
  labels.changed()
  viewer.drawOver()
}

/** A line that comes back to where it began encloses what it goes around. */
function fillWithin() {
  const [u, v] = stroke.path[0].plane.axes
  const points = stroke.path.map(({ at }) => at)
  const apart = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1])
  const gap = apart(points[0], points.at(-1))
  const way = points.slice(1).reduce((sum, point, i) => sum + apart(points[i], point), 0) // a fast mouse tells few points
  if (gap > 4 || way < 8 || way < 3 * gap) return
  const span = (k) => [Math.floor(Math.min(...points.map((p) => p[k]))), Math.ceil(Math.max(...points.map((p) => p[k])))]
  const [[u0, u1], [v0, v1]] = [span(0), span(1)]
  for (let b = v0; b <= v1; b++) {
    for (let a = u0; a <= u1; a++) {
      let inside = false
      for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
        const [[xi, yi], [xj, yj]] = [points[i], points[j]]
        if (yi > b + 0.5 !== yj > b + 0.5 && a + 0.5 < ((xj - xi) * (b + 0.5 - yi)) / (yj - yi) + xi) inside = !inside
      }
      if (!inside) continue
      const voxel = [...stroke.path[0].voxel]
      voxel[u] = a
      voxel[v] = b
      set(voxel, stroke.value)
    }
  }
}

/** A value that neither the drawing has nor a node that was measured, though it is taken out by now. */
function freeValue() {
  const used = new Set([...labels.values, ...state.nodes.map((node) => node.value)])
  for (let value = 1; value <= 250; value++) if (!used.has(value)) return value
  return 250
}

function down(event) {
  if (event.button !== 0 || tool === 'look') return
  event.stopPropagation()
  event.preventDefault()
  const spot = spotAt(event)
  if (!spot || document.body.classList.contains('busy')) return
  if (tool === 'grow') return void edit('grow', { at: spot.voxel, value: freeValue() })
  if (tool === 'draw' && !viewer.chosen) viewer.chosen = freeValue()
  stroke = { value: tool === 'erase' ? 0 : viewer.chosen, old: new Map(), path: [], tool }
  if (tool === 'cut') stroke.path.push(spot)
  else lineTo(spot)
}

function moved(event) {
  if (tool === 'look' || event.buttons & 2) return
  event.stopPropagation()
  const spot = stroke && spotAt(event)
  if (!spot || spot.plane !== stroke.path[0].plane) return
  if (stroke.tool === 'cut') stroke.path[1] = spot
  else if (spot.voxel.some((v, axis) => v !== stroke.path.at(-1).voxel[axis])) lineTo(spot)
}

function up(event) {
  if (!stroke) return
  event.stopPropagation()
  if (stroke.tool === 'cut') {
    const [from, to] = stroke.path
    stroke = null
    if (!to) return say('doing', 'Draw a line across the chosen node.')
    if (!viewer.chosen) return say('doing', 'Choose a node before splitting it.')
    return void edit('cut', { from: from.voxel, to: to.voxel, fresh: freeValue() })
  }
  fillWithin()
  if (stroke.old.size) remember(stroke.old)
  stroke = null
  changed()
}

/** What undo goes back to: the voxels that are about to change, and what was said of nodes. */
function remember(old = new Map()) {
  undo.push({ old, joins: [...joins], rejected: { ...rejected } })
  if (undo.length > 50) undo.shift()
}

function take(values) {
  const old = new Map()
  for (let at = 0; at < values.length; at++) if (values[at] !== labels.values[at]) old.set(at, labels.values[at])
  if (old.size) remember(old)
  labels.changed(values)
}

function replaceValue(from, to) {
  take(labels.values.map((value) => (value === from ? to : value)))
  changed()
}

function changed() {
  labels.changed()
  unsaved = true
  show()
  keep()
}

// Kept in the browser until it is saved.

async function drawn() {
  const bytes = new Uint8Array(await pack(labels.values))
  let text = ''
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000))
  return btoa(text)
}

async function keep() {
  try {
    localStorage.setItem(place, JSON.stringify({ base: state.base, time: new Date().toISOString(), size: labels.size, drawing: await drawn(), joins, rejected }))
  } catch {
    say('told', 'This browser cannot keep unsaved strokes; save often.')
  }
}

async function restore() {
  let kept = null
  try {
    kept = JSON.parse(localStorage.getItem(place))
  } catch {
    localStorage.removeItem(place)
  }
  if (!kept || kept.size.some((n, axis) => n !== labels.size[axis])) return
  labels.changed(new Uint8Array(await unpack(kept.drawing)))
  joins = kept.joins
  rejected = kept.rejected
  state.base = kept.base
  unsaved = true
  say('told', `Your unsaved strokes of ${moment(kept.time)} have been restored.`)
  show()
}

// The server.

async function ask(where, content) {
  let answer
  try {
    answer = await fetch(`/${where}/${encodeURIComponent(state.id)}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content) })
  } catch {
    throw new Error('The server does not answer; start aiene review again and open the address that it prints. Your strokes are kept in this browser.')
  }
  const told = await answer.json()
  if (!answer.ok) throw Object.assign(new Error(told.error), { code: answer.status })
  return told
}

async function working(work) {
  document.body.classList.add('busy')
  try {
    await work()
  } catch (error) {
    say('doing', '')
    say('told', `${error.message}${error.code === 409 || error.code === 507 ? ' Your strokes are kept in this browser.' : ''}`)
    stale = error.code === 409
    document.getElementById('conflict').hidden = !stale
  } finally {
    document.body.classList.remove('busy')
  }
}

function edit(name, more) {
  return working(async () => {
    say('told', '')
    const answer = await ask('edit', { tool: name, drawing: await drawn(), size: labels.size, value: viewer.chosen, ...more })
    take(new Uint8Array(await unpack(answer.drawing)))
    if (name === 'grow') viewer.chosen = answer.value
    changed()
  })
}

function save(status, anyway = false) {
  return working(async () => {
    say('told', '')
    say('saved', 'Measuring ...')
    wanted = status
    const began = performance.now()
    const reason = document.getElementById('reason').value
    state = { ...state, ...(await ask('save', { drawing: await drawn(), size: labels.size, base: state.base, status, reason, joins, rejected, anyway })) }
    await settled()
    say('saved', `Saved as version ${state.base} in ${((performance.now() - began) / 1000).toFixed(1)} s.`)
  }).finally(() => {
    if (unsaved) say('saved', '')
  })
}

async function settled() {
  await takeVoxels()
  joins = []
  rejected = {}
  undo.length = 0
  unsaved = false
  localStorage.removeItem(place)
  document.getElementById('conflict').hidden = true
  document.getElementById('reason').value = ''
  viewer.chosen = 0
  show()
}

function setTool(name) {
  tool = name
  document.body.classList.toggle('drawing', name !== 'look')
  for (const button of document.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', String(button.dataset.tool === name))
  const hints = { draw: viewer.chosen ? '' : 'No node is chosen: what is drawn becomes a new one.', grow: 'Click on a node.', cut: 'Draw a line across the chosen node.' }
  say('doing', hints[name] || '')
}

const edits = {
  fill: () => edit('fill'),
  interpolate: () => edit('interpolate'),
  undo: () => {
    const before = undo.pop()
    if (!before) return
    for (const [at, value] of before.old) labels.values[at] = value
    joins = before.joins
    rejected = before.rejected
    say('doing', '')
    changed()
  },
  new: () => {
    viewer.chosen = freeValue()
    setTool('draw')
    say('doing', 'Draw the new node.')
  },
  merge: () => {
    merging = viewer.chosen === PRIMARY ? 0 : viewer.chosen
    say('doing', merging ? `Click the node that belongs to ${viewer.nodes.get(merging)?.name}.` : 'Choose a node first.')
  },
  primary: () => {
    if (viewer.chosen && viewer.chosen !== PRIMARY) replaceValue(viewer.chosen, PRIMARY)
    else if (labels.values.includes(PRIMARY)) replaceValue(PRIMARY, freeValue())
  },
  reject: () => {
    if (!viewer.chosen || viewer.chosen === PRIMARY) return say('doing', 'Choose a node first.')
    const reason = document.getElementById('reason').value.trim()
    if (!reason) return say('doing', 'Write the reason in the field below, then reject.')
    const value = viewer.chosen
    take(labels.values.map((one) => (one === value ? 0 : one)))
    rejected[value] = reason
    changed()
  }
}

function listen() {
  const stage = document.getElementById('stage')
  const pen = document.getElementById('pen')
  pen.addEventListener('change', () => pen.blur()) // keys are for the tools again
  for (const [name, handler] of [['mousedown', down], ['mousemove', moved], ['mouseup', up]]) stage.addEventListener(name, handler, true)
  window.addEventListener('mouseup', up, true)
  for (const name of ['pointerdown', 'pointerup']) stage.addEventListener(name, (event) => tool !== 'look' && event.button === 0 && event.stopPropagation(), true)
  for (const button of document.querySelectorAll('[data-tool]')) button.addEventListener('click', () => setTool(button.dataset.tool))
  for (const button of document.querySelectorAll('[data-edit]')) button.addEventListener('click', () => edits[button.dataset.edit]())
  for (const button of document.querySelectorAll('[data-save]')) button.addEventListener('click', () => save(button.dataset.save))
  for (const button of document.querySelectorAll('[data-window]')) button.addEventListener('click', () => setWindow(viewer, button.dataset.window))
  document.getElementById('anyway').addEventListener('click', () => save(wanted, true))
  document.getElementById('reload').addEventListener('click', () => working(async () => {
    state = { ...state, ...(await ask('state', {})) }
    await settled()
    say('told', '')
  }))
  const actions = {
    in: () => viewer.zoom(1.3),
    out: () => viewer.zoom(1 / 1.3),
    reset: () => viewer.zoom(0),
    outlines: () => {
      viewer.outlined = !viewer.outlined
      viewer.drawOver()
    }
  }
  for (const button of document.querySelectorAll('[data-action]')) button.addEventListener('click', actions[button.dataset.action])
  const keys = { v: () => setTool('look'), d: () => setTool('draw'), e: () => setTool('erase'), g: () => setTool('grow'), x: () => setTool('cut'), f: edits.fill, i: edits.interpolate, z: edits.undo }
  listenToKeys(viewer, actions, (by) => viewer.next(by), keys)
  window.addEventListener('beforeunload', (event) => unsaved && event.preventDefault())
}

openReview()
