'use strict'
// Data of a page, unpacked. Voxels come in the order of RAS (x to the right, y to the front, z to the head), so an
// index here is an index there; NiiVue is given plain axes, so that it has nothing to turn.

const PLANES = [
  { name: 'axial', across: 2, axes: [0, 1] },
  { name: 'coronal', across: 1, axes: [0, 2] },
  { name: 'sagittal', across: 0, axes: [1, 2] }
]

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent)
}

async function unpack(base64) {
  const text = atob(base64)
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i)
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Response(stream).arrayBuffer()
}

async function pack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('gzip'))
  return new Response(stream).arrayBuffer()
}

/** Sizes and spacings (x, y, z) of a NIfTI-1 file, little-endian as we write it. */
function niftiHead(buffer) {
  const view = new DataView(buffer)
  return {
    size: [42, 44, 46].map((at) => view.getInt16(at, true)),
    spacing: [80, 84, 88].map((at) => view.getFloat32(at, true)),
    offset: view.getFloat32(108, true)
  }
}

/** The same file with axes along x, y, z and its first voxel at `first` (mm): the page's own space. */
function withPlainAxes(buffer, first) {
  const view = new DataView(buffer.slice(0))
  const { spacing } = niftiHead(buffer)
  view.setInt16(252, 0, true) // no qform
  view.setInt16(254, 1, true)
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) view.setFloat32(280 + 16 * row + 4 * column, row === column ? spacing[row] : 0, true)
    view.setFloat32(280 + 16 * row + 12, first[row], true)
  }
  return view.buffer
}

/** Labels of a block: which voxel has which value, and their edges on any slice. */
class Labels {
  constructor(buffer) {
    const { size, spacing, offset } = niftiHead(buffer)
    this.size = size
    this.spacing = spacing
    this.buffer = buffer
    this.values = new Uint8Array(buffer, offset, size[0] * size[1] * size[2])
    this.edges = new Map()
  }

  at(voxel) {
    const inside = voxel.every((v, axis) => v >= 0 && v < this.size[axis])
    return inside ? this.values[voxel[0] + this.size[0] * (voxel[1] + this.size[1] * voxel[2])] : 0
  }

  changed(values = this.values) {
    this.values = values
    this.edges.clear()
  }

  /** Edges between values on a slice: value -> [u, v, u, v, ...] in voxels, 0 at the first one's outer corner. */
  outlines(plane, slice) {
    const key = `${plane.across} ${slice}`
    if (!this.edges.has(key)) this.edges.set(key, this.findOutlines(plane, slice))
    return this.edges.get(key)
  }

  findOutlines(plane, slice) {
    const [u, v] = plane.axes
    const strides = [1, this.size[0], this.size[0] * this.size[1]]
    const found = new Map()
    const add = (value, ...edge) => {
      if (!value) return
      if (!found.has(value)) found.set(value, [])
      found.get(value).push(...edge)
    }
    if (slice < 0 || slice >= this.size[plane.across]) return found
    const start = slice * strides[plane.across]
    for (let b = 0; b <= this.size[v]; b++) {
      for (let a = 0; a <= this.size[u]; a++) {
        const here = a < this.size[u] && b < this.size[v] ? this.values[start + a * strides[u] + b * strides[v]] : 0
        const before = a > 0 && b < this.size[v] ? this.values[start + (a - 1) * strides[u] + b * strides[v]] : 0
        const below = b > 0 && a < this.size[u] ? this.values[start + a * strides[u] + (b - 1) * strides[v]] : 0
        if (here !== before) for (const value of [here, before]) add(value, a, b, a, b + 1)
        if (here !== below) for (const value of [here, below]) add(value, a, b, a + 1, b)
      }
    }
    return found
  }
}
