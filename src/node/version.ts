import packageJson from '../../package.json' with { type: 'json' }

/** The program's version: "0.1.0". */
export const VERSION: string = packageJson.version
