// Stands for `zarrita`: no page reads OME-Zarr, and its codecs would make each page 1.4 MB larger.
export const FetchStore = undefined
export const get = undefined
export const open = undefined
export const registry = undefined
export const root = undefined
export const slice = undefined
