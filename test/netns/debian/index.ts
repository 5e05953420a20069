/** Fresh Debians for the deploy kits: roots made by debootstrap, booted with their own systemd, and images made of a Dockerfile without Docker. */
export { parseDockerfile } from './dockerfile.ts'
export { commandsInHead, commandsOf, withValues } from './guide.ts'
export { type Container, Image, nodeImage } from './image.ts'
export { asVersion, installed, type Kit, KitMachine, makePackage, type Package } from './kits.ts'
export { firstChildOf, Layer } from './layer.ts'
export { DebianMachine, operatorsHome } from './machine.ts'
export { reasonAgainstDebian } from './root.ts'
