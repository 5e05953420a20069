import { silentLogger } from '../../src/base/index.ts'
import { nativeSuite } from '../../src/crypto/index.ts'
import {
  createExitService,
  createResolver,
  type Exit,
  type ExitModules,
  exitConfig,
  KernelBackend,
  NetstackBackend,
  type NetstackBackendModules,
} from '../../src/egress/index.ts'

/** An exit with the netstack backend for both families, without a node around it. */
export async function netstackExit(
  config: object = {},
  changes: { readonly exit?: Partial<ExitModules>; readonly backend?: Partial<NetstackBackendModules> } = {},
): Promise<{ readonly exit: Exit; readonly backend: NetstackBackend; stop(): Promise<void> }> {
  const settings = exitConfig.parse({ families: 'both', connectTimeoutMs: 3000, attemptTimeoutMs: 2000, ...config })
  const now = (): number => performance.now()
  const backend = new NetstackBackend({
    config: settings,
    families: [4, 6],
    suite: nativeSuite(),
    now,
    logger: silentLogger,
    ...changes.backend,
  })
  await backend.start()
  const exit = createExitService({
    config: settings,
    backend: new KernelBackend(settings),
    packets: backend,
    resolver: createResolver({ config: settings, now }),
    privateDestinations: [],
    isRelayAddress: () => false,
    isOwnAddress: () => false,
    now,
    logger: silentLogger,
    ...changes.exit,
  })
  return {
    exit,
    backend,
    stop: async () => {
      exit.close()
      await backend.stop()
    },
  }
}
