'use strict'
// The cohort's page: a table that can be sorted and filtered, a contact sheet, and distributions of what is shown.

const rows = JSON.parse(document.getElementById('rows').textContent)
const thumbnails = JSON.parse(document.getElementById('thumbnails').textContent)
const RANK = { failed: 0, skipped: 1, no_nodes: 3, ok: 3 }
const WORDS = { ok: 'done', no_nodes: 'no nodes', failed: 'failed', skipped: 'skipped' }
const columns = [
  { key: 'id', title: 'Patient' },
  { key: 'status', title: 'Status' },
  { key: 'count', title: 'AI-ENE number', digits: 0 },
  { key: 'nodes', title: 'Nodes', digits: 0 },
  { key: 'ene', title: 'Highest ENE', digits: 4 },
  { key: 'bits', title: 'Uncertainty, bits', digits: 4 },
  { key: 'mm3', title: 'Largest node, mm³', digits: 0 },
  ...(rows.some((row) => row.group) ? [{ key: 'group', title: 'Risk group' }] : []),
  { key: 'warnings', title: 'Look at' }
]
rows.forEach((row, place) => {
  row.place = place
  row.rank = row.status in RANK && RANK[row.status] < 3 ? RANK[row.status] : row.warnings.length ? 2 : 3
})
let sorting = { key: 'rank', down: false }

const lazy = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue
    target.src = `data:image/jpeg;base64,${thumbnails[Number(target.dataset.place)]}`
    lazy.unobserve(target)
  }
}, { rootMargin: '400px' })

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag)
  if (text !== undefined && text !== null) made.textContent = text
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

function thumbnailOf(row, size) {
  if (!thumbnails[row.place]) return element('span', '', { class: 'blank' })
  const image = element('img', null, { alt: '', width: size, height: size, 'data-place': row.place })
  lazy.observe(image)
  return image
}

function nameOf(row) {
  return row.href ? element('a', row.id, { href: row.href }) : element('span', row.id)
}

function textOf(row, column) {
  const value = row[column.key]
  if (value === null || value === undefined || value === '') return '–'
  if (column.key === 'status') return WORDS[value] || value
  return column.digits === undefined ? String(value) : value.toFixed(column.digits)
}

function lineOf(row) {
  const line = element('tr', null, { class: row.status })
  const picture = element('td', null, { class: 'thumb' })
  picture.append(thumbnailOf(row, 72))
  line.append(picture)
  for (const column of columns) {
    const box = element('td', null, { class: column.digits === undefined ? column.key : 'num' })
    if (column.key === 'id') box.append(nameOf(row))
    else if (column.key === 'warnings') {
      for (const words of [row.reason, ...row.warnings].filter(Boolean)) box.append(element('div', words))
    } else box.textContent = textOf(row, column)
    line.append(box)
  }
  return line
}

function cardOf(row) {
  const card = element(row.href ? 'a' : 'div', null, { class: `card ${row.status}`, ...(row.href && { href: row.href }) })
  card.append(thumbnailOf(row, 128), element('b', row.id))
  const words = row.status === 'ok' || row.status === 'no_nodes' ? `AI-ENE ${row.count}, ${row.nodes} node${row.nodes === 1 ? '' : 's'}` : WORDS[row.status]
  card.append(element('small', words))
  if (row.warnings.length) card.append(element('small', `${row.warnings.length} to look at`, { class: 'warned' }))
  return card
}

function chosen() {
  const words = document.getElementById('search').value.trim().toLowerCase()
  const only = document.getElementById('only').value
  const group = document.getElementById('group')?.value || ''
  const fits = {
    '': () => true,
    failed: (row) => row.status === 'failed' || row.status === 'skipped',
    warned: (row) => row.warnings.length > 0,
    ene: (row) => row.count > 0,
    none: (row) => row.count === 0,
    no_nodes: (row) => row.status === 'no_nodes'
  }[only]
  const kept = rows.filter((row) => fits(row) && (!group || row.group === group) && (!words || row.id.toLowerCase().includes(words)))
  const { key, down } = sorting
  const of = (row) => (key === 'warnings' ? row.warnings.length : row[key])
  return kept.sort((a, b) => {
    const [p, q] = [of(a), of(b)]
    const empty = (v) => v === null || v === undefined || v === ''
    if (empty(p) || empty(q)) return empty(p) - empty(q) || a.place - b.place
    const order = typeof p === 'string' ? p.localeCompare(q, 'en', { numeric: true }) : p - q
    return (down ? -order : order) || a.place - b.place
  })
}

function show() {
  const shown = chosen()
  const sheet = document.getElementById('sheet').getAttribute('aria-pressed') === 'true'
  document.getElementById('table').hidden = sheet
  document.getElementById('cards').hidden = !sheet
  if (sheet) document.getElementById('cards').replaceChildren(...shown.map(cardOf))
  else document.querySelector('#table tbody').replaceChildren(...shown.map(lineOf))
  document.getElementById('told').textContent = `${shown.length} of ${rows.length} patients`
  for (const head of document.querySelectorAll('#table th[data-key]')) {
    const own = head.dataset.key === sorting.key
    head.setAttribute('aria-sort', own ? (sorting.down ? 'descending' : 'ascending') : 'none')
  }
  distributions(shown)
}

function distributions(shown) {
  const done = shown.filter((row) => row.count !== null)
  const nodes = done.flatMap((row) => row.each)
  const whole = (values) => {
    const last = Math.max(5, ...values)
    const step = Math.ceil((last + 1) / 16)
    const names = Array.from({ length: Math.ceil((last + 1) / step) }, (_, k) => (step === 1 ? `${k}` : `${k * step}-${k * step + step - 1}`))
    return bars(names, values.map((value) => Math.floor(value / step)))
  }
  const tenths = Array.from({ length: 10 }, (_, k) => (k / 10).toFixed(1))
  const ml = [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
  const ene = nodes.map(([p]) => p).filter((p) => p !== null)
  const charts = [
    ['AI-ENE number per patient', whole(done.map((row) => row.count)), done.length, 'patients'],
    ['Nodes per patient', whole(done.map((row) => row.nodes)), done.length, 'patients'],
    ['ENE probability per node', bars(tenths, ene.map((p) => Math.min(9, Math.floor(p * 10)))), ene.length, 'nodes'],
    ['Volume per node, ml', bars(ml.map(String), nodes.map(([, v]) => ml.filter((edge) => edge <= v).length - 1)), nodes.length, 'nodes']
  ]
  document.getElementById('charts').replaceChildren(...charts.map(chart))
}

function bars(names, places) {
  const counts = names.map(() => 0)
  for (const place of places) counts[place] += 1
  return { names, counts }
}

function chart([title, { names, counts }, n, what]) {
  const [width, height, foot] = [300, 96, 18]
  const svg = (tag, attributes, text) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
    if (text !== undefined) made.textContent = text
    return made
  }
  const most = Math.max(1, ...counts)
  const each = width / names.length
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height + foot + 12}`, role: 'img' })
  drawing.append(svg('title', {}, `${title}: ${names.map((name, k) => `${name}: ${counts[k]}`).join(', ')}`))
  counts.forEach((count, k) => {
    const tall = (count / most) * height
    drawing.append(svg('rect', { x: k * each + 1, y: height + 12 - tall, width: Math.max(1, each - 2), height: tall, class: 'bar-of' }))
    if (count) drawing.append(svg('text', { x: (k + 0.5) * each, y: height + 9 - tall, class: 'count' }, count))
    if (names.length < 12 || k % 2 === 0) drawing.append(svg('text', { x: (k + 0.5) * each, y: height + 12 + foot - 5 }, names[k]))
  })
  const figure = element('figure')
  figure.append(element('figcaption', `${title} (${n} ${what})`), drawing)
  return figure
}

function begin() {
  const head = document.querySelector('#table thead tr')
  head.append(element('th', '', { scope: 'col' }))
  for (const column of columns) {
    const box = element('th', null, { scope: 'col', 'data-key': column.key, class: column.digits === undefined ? '' : 'num' })
    const button = element('button', column.title, { type: 'button' })
    button.addEventListener('click', () => {
      sorting = { key: column.key, down: sorting.key === column.key ? !sorting.down : column.digits !== undefined || column.key === 'warnings' }
      show()
    })
    box.append(button)
    head.append(box)
  }
  const groups = document.getElementById('group')
  if (groups) for (const name of [...new Set(rows.map((row) => row.group).filter(Boolean))].sort()) groups.append(element('option', name, { value: name }))
  for (const id of ['search', 'only', 'group']) document.getElementById(id)?.addEventListener('input', show)
  const sheet = document.getElementById('sheet')
  sheet.addEventListener('click', () => {
    sheet.setAttribute('aria-pressed', String(sheet.getAttribute('aria-pressed') !== 'true'))
    show()
  })
  document.getElementById('first').addEventListener('click', () => {
    sorting = { key: 'rank', down: false }
    show()
  })
  show()
  document.body.classList.add('ready')
}

begin()
