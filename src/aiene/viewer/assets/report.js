'use strict'
// A patient's page: its viewer, its list of nodes, its keys.

async function openReport() {
  const about = readJson('case')
  const rows = [...document.querySelectorAll('tr[data-value]')]
  const byValue = new Map(about.nodes.map((node) => [node.value, node]))
  if (!about.hasLabels || !hasWebGl()) {
    document.body.classList.add('pictures-only')
    if (about.hasLabels) document.getElementById('no-webgl').hidden = false
    for (const row of rows) {
      row.querySelector('button').addEventListener('click', () => {
        mark(rows, Number(row.dataset.value))
        document.getElementById(`key-${row.dataset.value}`)?.scrollIntoView({ block: 'center' })
      })
    }
    return
  }
  const labels = new Labels(await unpack(document.getElementById('labels').textContent))
  const packedCt = document.getElementById('ct')
  const viewer = new Viewer(document.getElementById('stage'), about.nodes)
  const readout = document.getElementById('readout')
  viewer.onMove = (voxel) => {
    const place = about.affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3])
    const value = labels.at(voxel)
    const name = value === PRIMARY ? 'GTVp' : byValue.get(value)?.name || ''
    const volume = viewer.nv.volumes[0]
    const at = packedCt && volume ? volume.mm2vox(voxel.map((v, axis) => v * labels.spacing[axis])) : null
    const hu = at ? `${Math.round(volume.getValue(...at))} HU` : ''
    readout.textContent = `LPS ${place.map((mm) => mm.toFixed(1)).join(', ')} mm   ${hu}   ${name}`
  }
  await viewer.open(packedCt ? await unpack(packedCt.textContent) : null, labels)
  let solid = null
  viewer.onChoose = (value) => {
    mark(rows, value)
    solid?.choose(value)
  }
  for (const row of rows) row.addEventListener('click', () => viewer.choose(Number(row.dataset.value)))
  for (const button of document.querySelectorAll('button[data-window]')) {
    button.addEventListener('click', () => setWindow(viewer, button.dataset.window))
  }
  const actions = {
    in: () => viewer.zoom(1.3),
    out: () => viewer.zoom(1 / 1.3),
    reset: () => {
      viewer.zoom(0)
      setWindow(viewer, 'Soft tissue')
    },
    outlines: () => {
      viewer.outlined = !viewer.outlined
      document.querySelector('button[data-action=outlines]').setAttribute('aria-pressed', String(viewer.outlined))
      viewer.drawOver()
    }
  }
  for (const button of document.querySelectorAll('button[data-action]')) {
    button.addEventListener('click', actions[button.dataset.action])
  }
  listenToKeys(viewer, actions, (by) => viewer.next(by), { ',': () => solid?.turn(-15, 0), '.': () => solid?.turn(15, 0) })
  window.aiene = { viewer, labels } // for tests, and for the curious
  const surfaces = document.getElementById('surfaces')
  if (surfaces) { // none where nothing was found
    const shapes = JSON.parse(new TextDecoder().decode(await unpack(surfaces.textContent)))
    solid = await openSurfaces(document.getElementById('solid'), shapes, (value) => viewer.kind(value))
    window.aiene.solid = solid
  }
  document.body.classList.add('ready')
}

function mark(rows, value) {
  for (const row of rows) {
    const chosen = Number(row.dataset.value) === value
    row.classList.toggle('chosen', chosen)
    row.querySelector('button').setAttribute('aria-pressed', String(chosen))
    if (chosen) row.scrollIntoView({ block: 'nearest' })
  }
}

openReport()
