import { render } from 'preact'
import './styles/index.css'
import { App } from './app.tsx'
import { signOut, startConnection } from './connection.ts'
import { followNode } from './node-state.ts'
import { redeemCode, token, watchForLinks } from './session.ts'
import { startTheme } from './theme.ts'

startTheme()
watchForLinks()
const problem = await redeemCode()
if (token() === null) signOut(problem)
followNode()
startConnection()
render(<App />, document.getElementById('app')!)
