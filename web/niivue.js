// What the pages use of NiiVue, as one global name.
import { DRAG_MODE, NVImage, NVMesh, Niivue, SHOW_RENDER, SLICE_TYPE } from '@niivue/niivue'

globalThis.niivue = { DRAG_MODE, NVImage, NVMesh, Niivue, SHOW_RENDER, SLICE_TYPE }
