export { ControlClient } from './client.ts'
export { type ControlEvent, type ControlProblem, type ControlRoutes, TOKEN_FILE } from './messages.ts'
export { type RunningNode, runningNodes } from './registry.ts'
export { type ControlOptions, type ControlServer, startControl } from './server.ts'
