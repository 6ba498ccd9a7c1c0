'use strict'
// Three planes of a CT with outlines on them, and the nodes in three dimensions.

const WINDOWS = { 'Soft tissue': [50, 350], Bone: [500, 2000], Wide: [-100, 1800] }
const COLOURS = { ene: '#ff8b3d', none: '#56b4e9', unknown: '#ffffff', primary: '#e18fc0', chosen: '#f0e442' }
const PRIMARY = 255

function hasWebGl() {
  try {
    return Boolean(document.createElement('canvas').getContext('webgl2'))
  } catch {
    return false
  }
}

function bytesOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))
}

class Viewer {
  /**
   * @param stage element that gets the canvases
   * @param nodes [{value, kind, key}] of the labels; `key` is the voxel to look at
   */
  constructor(stage, nodes) {
    this.stage = stage
    this.nodes = new Map(nodes.map((node) => [node.value, node]))
    this.chosen = 0
    this.outlined = true
    this.onChoose = () => {}
    this.onMove = () => {}
  }

  async open(ctBuffer, labels) {
    const { DRAG_MODE, NVImage, Niivue, SHOW_RENDER } = niivue
    this.labels = labels
    this.canvas = this.stage.querySelector('canvas.image')
    this.over = this.stage.querySelector('canvas.over')
    this.canvas.addEventListener('keydown', (event) => event.stopImmediatePropagation(), true) // keys are ours
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.55, 0.75, 0.85, 0.45],
      crosshairGap: 14,
      crosshairWidth: 0.35,
      crosshairWidthUnit: 'mm',
      dragAndDropEnabled: false,
      dragMode: DRAG_MODE.windowing,
      fontColor: [0.9, 0.9, 0.9, 1],
      fontMinPx: 15,
      isForceMouseClickToVoxelCenters: true,
      isRadiologicalConvention: true,
      loadingText: '',
      logLevel: 'error',
      multiplanarShowRender: SHOW_RENDER.NEVER,
      sagittalNoseLeft: true,
      viewModeHotKey: '',
      clipPlaneHotKey: '',
      cycleClipPlaneHotKey: ''
    })
    await this.nv.attachToCanvas(this.canvas)
    this.nv.setCustomLayout([
      { sliceType: 0, position: [0, 0, 0.62, 1] },
      { sliceType: 1, position: [0.625, 0, 0.375, 0.497] },
      { sliceType: 2, position: [0.625, 0.503, 0.375, 0.497] }
    ])
    const draw = this.nv.drawScene.bind(this.nv)
    this.nv.drawScene = () => {
      draw()
      this.drawOver()
    }
    const first = ctBuffer ? niftiHead(ctBuffer).spacing.map((mm, axis) => (mm - labels.spacing[axis]) / 2) : [0, 0, 0]
    const shown = withPlainAxes(ctBuffer || labels.buffer, first)
    const [low, high] = this.range('Soft tissue')
    const image = await NVImage.new(shown, 'ct.nii', 'gray', ctBuffer ? 1 : 0, null, low, high)
    this.nv.addVolume(image)
    this.nv.onLocationChange = () => this.onMove(this.voxel())
    this.canvas.addEventListener('pointerup', (event) => {
      if (event.button === 0) this.clicked()
    })
    new ResizeObserver(() => this.nv.drawScene()).observe(this.canvas)
    this.look(nodesFirst(this.nodes) || labels.size.map((n) => Math.floor(n / 2)))
  }

  range(name) {
    const [level, width] = WINDOWS[name]
    return [level - width / 2, level + width / 2]
  }

  window(name) {
    const [low, high] = this.range(name)
    this.nv.volumes[0].cal_min = low
    this.nv.volumes[0].cal_max = high
    this.nv.updateGLVolume()
  }

  /** The voxel of the labels under the crosshair, (x, y, z). */
  voxel() {
    const mm = this.nv.frac2mm(this.nv.scene.crosshairPos)
    return this.labels.spacing.map((step, axis) => Math.round(mm[axis] / step))
  }

  /** Move the crosshair to the middle of a voxel of the labels. */
  look(voxel) {
    const mm = voxel.map((v, axis) => v * this.labels.spacing[axis])
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm)
    this.nv.drawScene()
    this.onMove(this.voxel())
  }

  step(axis, by) {
    const voxel = this.voxel()
    voxel[axis] = Math.min(Math.max(voxel[axis] + by, 0), this.labels.size[axis] - 1)
    this.look(voxel)
  }

  zoom(factor) {
    const at = this.nv.frac2mm(this.nv.scene.crosshairPos)
    const [x, y, z, before] = this.nv.scene.pan2Dxyzmm
    const now = factor ? Math.min(Math.max(before * factor, 1), 12) : 1
    const pan = [x, y, z].map((mm, axis) => (now === 1 ? 0 : mm + (before - now) * at[axis]))
    this.nv.scene.pan2Dxyzmm = [...pan, now]
    this.nv.drawScene()
  }

  clicked() {
    const value = this.labels.at(this.voxel())
    if (value && this.nodes.has(value) && value !== this.chosen) this.choose(value, false)
  }

  choose(value, jump = true) {
    this.chosen = value
    const node = this.nodes.get(value)
    if (jump && node?.key) this.look(node.key)
    else this.nv.drawScene()
    this.onChoose(value)
  }

  /** The next node, or the one before. */
  next(by) {
    const values = [...this.nodes.values()].filter((node) => node.key).map((node) => node.value)
    if (!values.length) return
    const place = values.indexOf(this.chosen)
    this.choose(values[place < 0 ? (by > 0 ? 0 : values.length - 1) : (place + by + values.length) % values.length])
  }

  kind(value) {
    return value === PRIMARY ? 'primary' : this.nodes.get(value)?.kind || 'unknown'
  }

  /** From voxels of the labels on a tile's slice to CSS pixels of the canvas: [scale u, offset, scale v, offset]. */
  tileMap(tile, index) {
    const ratio = this.canvas.width / this.canvas.clientWidth
    const [left, top, width, height] = tile.leftTopWidthHeight
    const plane = PLANES[tile.axCorSag]
    const voxelAt = (x, y) => {
      const frac = this.nv.screenXY2TextureFrac(x, y, index, false)
      const mm = this.nv.frac2mm([frac[0], frac[1], frac[2]])
      return plane.axes.map((axis) => mm[axis] / this.labels.spacing[axis] + 0.5) // 0 at the outer corner
    }
    // well within the tile: at its very corner NiiVue may say that a point lies outside
    const [x, y] = [left + width / 4, top + height / 4]
    const one = voxelAt(x, y)
    const other = voxelAt(x + width / 2, y + height / 2)
    const su = width / 2 / (other[0] - one[0])
    const sv = height / 2 / (other[1] - one[1])
    return {
      plane,
      ratio,
      box: [left, top, width, height].map((v) => v / ratio),
      map: (u, v) => [(x + (u - one[0]) * su) / ratio, (y + (v - one[1]) * sv) / ratio]
    }
  }

  drawOver() {
    const screen = window.devicePixelRatio || 1
    const { clientWidth, clientHeight } = this.canvas
    if (this.over.width !== Math.round(clientWidth * screen) || this.over.height !== Math.round(clientHeight * screen)) {
      this.over.width = Math.round(clientWidth * screen)
      this.over.height = Math.round(clientHeight * screen)
    }
    const pen = this.over.getContext('2d')
    pen.setTransform(screen, 0, 0, screen, 0, 0)
    pen.clearRect(0, 0, clientWidth, clientHeight)
    if (!this.outlined || !this.nv.volumes.length) return
    const voxel = this.voxel()
    this.nv.screenSlices.forEach((tile, index) => {
      if (tile.axCorSag > 2) return
      const { plane, box, map } = this.tileMap(tile, index)
      pen.save()
      pen.beginPath()
      pen.rect(...box)
      pen.clip()
      for (const [value, edges] of this.labels.outlines(plane, voxel[plane.across])) this.drawOutline(pen, value, edges, map)
      pen.restore()
    })
  }

  drawOutline(pen, value, edges, map) {
    const kind = this.kind(value)
    const chosen = value === this.chosen
    pen.beginPath()
    let right = -Infinity
    let top = 0
    for (let at = 0; at < edges.length; at += 4) {
      const [x1, y1] = map(edges[at], edges[at + 1])
      const [x2, y2] = map(edges[at + 2], edges[at + 3])
      pen.moveTo(x1, y1)
      pen.lineTo(x2, y2)
      if (x2 > right) [right, top] = [x2, y2]
    }
    pen.lineCap = 'square'
    pen.lineWidth = chosen ? 2.4 : 1.6
    pen.strokeStyle = chosen ? COLOURS.chosen : COLOURS[kind]
    pen.stroke()
    const name = value === PRIMARY ? 'GTVp' : this.nodes.get(value)?.short || ''
    pen.font = '600 13px system-ui, sans-serif'
    pen.lineWidth = 3
    pen.strokeStyle = '#000'
    pen.strokeText(name, right + 4, top)
    pen.fillStyle = chosen ? COLOURS.chosen : COLOURS[kind]
    pen.fillText(name, right + 4, top)
  }
}

function nodesFirst(nodes) {
  return [...nodes.values()].find((node) => node.key)?.key
}

function setWindow(viewer, name) {
  viewer.window(name)
  for (const button of document.querySelectorAll('button[data-window]')) {
    button.setAttribute('aria-pressed', String(button.dataset.window === name))
  }
}

/** Keys of every page with a viewer; `more` are those of one page. */
function listenToKeys(viewer, actions, next, more = {}) {
  const keys = {
    ArrowUp: () => viewer.step(2, 1),
    PageUp: () => viewer.step(2, 1),
    ArrowDown: () => viewer.step(2, -1),
    PageDown: () => viewer.step(2, -1),
    ArrowLeft: () => viewer.step(0, 1),
    ArrowRight: () => viewer.step(0, -1),
    'Shift+ArrowUp': () => viewer.step(1, 1),
    'Shift+ArrowDown': () => viewer.step(1, -1),
    n: () => next(1),
    p: () => next(-1),
    1: () => setWindow(viewer, 'Soft tissue'),
    2: () => setWindow(viewer, 'Bone'),
    3: () => setWindow(viewer, 'Wide'),
    '+': actions.in,
    '=': actions.in,
    '-': actions.out,
    0: actions.reset,
    o: actions.outlines,
    ...more
  }
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return
    const arrow = event.key.startsWith('Arrow')
    const action = keys[arrow && event.shiftKey ? `Shift+${event.key}` : event.key]
    if (!action) return
    event.preventDefault()
    action()
  })
}

/** The nodes in three dimensions, in the skin's faint surface; a drag turns them. */
async function openSurfaces(canvas, surfaces, kindOf) {
  const { NVMesh, Niivue } = niivue
  const nv = new Niivue({
    backColor: [0, 0, 0, 1],
    dragAndDropEnabled: false,
    isOrientCube: true,
    loadingText: '',
    logLevel: 'error',
    show3Dcrosshair: false,
    viewModeHotKey: '',
    clipPlaneHotKey: '',
    cycleClipPlaneHotKey: ''
  })
  canvas.addEventListener('keydown', (event) => event.stopImmediatePropagation(), true)
  await nv.attachToCanvas(canvas)
  const meshes = new Map()
  const skinLast = [...surfaces.filter((one) => one.value), ...surfaces.filter((one) => !one.value)]
  for (const one of skinLast) {
    const colour = one.value ? bytesOf(COLOURS[kindOf(one.value)]) : [200, 190, 180]
    const points = Float32Array.from(one.points, (tenths) => tenths / 10)
    const mesh = new NVMesh(points, new Uint32Array(one.triangles), `s${one.value}.mz3`, new Uint8Array([...colour, 255]), one.value ? 1 : 0.3, true, nv.gl)
    nv.addMesh(mesh)
    meshes.set(one.value, mesh)
  }
  nv.setSliceType(niivue.SLICE_TYPE.RENDER)
  nv.setRenderAzimuthElevation(200, 8)
  nv.setScale(1.35)
  return {
    turn: (azimuth, elevation) =>
      nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + azimuth, nv.scene.renderElevation + elevation),
    choose: (value) => {
      for (const [own, mesh] of meshes) {
        if (!own) continue
        const colour = bytesOf(own === value ? COLOURS.chosen : COLOURS[kindOf(own)])
        mesh.rgba255 = new Uint8Array([...colour, 255])
        mesh.updateMesh(nv.gl)
      }
      nv.drawScene()
    }
  }
}
