/** The file with the token, in the node's directory. */
export const TOKEN_FILE = 'control-token'

/** Names the version of the program that answers, to whoever may ask. */
export const VERSION_HEADER = 'shallot-version'
