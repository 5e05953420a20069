/** The file with the token, in the node's directory. */
export const TOKEN_FILE = 'control-token'
