export { isErrno } from './errors.ts'
export { createFile, makeDirectory, PRIVATE_DIR_MODE, PRIVATE_FILE_MODE, readFileIfAny, replaceFile } from './files.ts'
export { isProcessAlive, processMark } from './process-life.ts'
export { Store, type StoreOptions, type StoreWarning } from './store.ts'
