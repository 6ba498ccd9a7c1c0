// The licence of every package in the bundle; NiiVue's own npm package holds no licence file.
const fs = require('fs')
const path = require('path')

const BSD2 = fs.readFileSync(path.join(__dirname, 'niivue.LICENSE'), 'utf8')
const PACKAGES = ['@niivue/niivue', 'gl-matrix', 'nifti-reader-js', 'fflate', 'array-equal', '@lukeed/uuid', '@ungap/structured-clone']

for (const name of PACKAGES) {
  const folder = path.join(__dirname, 'node_modules', name)
  const about = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'))
  const file = fs.readdirSync(folder).find((one) => /^licen[cs]e/i.test(one))
  const text = file ? fs.readFileSync(path.join(folder, file), 'utf8') : BSD2
  console.log(`${name} ${about.version} (${about.license})\n\n${text.trim()}\n\n${'-'.repeat(80)}\n`)
}
