import type { Socket } from 'node:net'

/**
 * libuv does not reset a socket while its shutdown is under way (EINVAL), and Node then forgets to close it: the descriptor stays for ever. Such a socket
 * has sent everything and is saying FIN, so closing it loses nothing; what the peer still sends is answered with RST by the kernel.
 */
export function closeWhereResetFails(socket: Socket): void {
  const reset = socket.resetAndDestroy.bind(socket)
  socket.resetAndDestroy = () => {
    const isShuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0
    return isShuttingDown ? socket.destroy() : reset()
  }
}
