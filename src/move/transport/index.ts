/**
 * Ways to the other end of a move.
 */
import { VirtError } from "../../errors.js";
import { openSsh } from "./ssh.js";
import { parseTarget, showTarget, type Target } from "./target.js";
import { openTls } from "./tls.js";
import type { OpenOptions, Transport } from "./transport.js";
import { openUnix } from "./unix.js";

export { parseTarget, showTarget, type Target } from "./target.js";
export type { OpenOptions, Transport } from "./transport.js";

/**
 * Opens a stream to `virt-run receive` at the target. Over ssh this only starts ssh: that a host cannot be reached, or that there
 * is no virt-run on it, shows as an early end of the stream, and `failure` says which.
 *
 * Errors: ERR_USAGE, ERR_ABORTED; ssh: ERR_NOT_FOUND (no ssh here), later in `failure` ERR_UNREACHABLE, ERR_HOST_KEY,
 * ERR_AUTHENTICATION, ERR_REMOTE_MISSING, ERR_REMOTE_VERSION, ERR_TRANSPORT; tls: the same at once, and ERR_NOT_ENROLLED.
 *
 * @example
 * const transport = await openTransport("ssh://b", { signal });
 * try {
 *   const wire = new native.Wire(transport.readFd, transport.writeFd);
 *   …
 * } finally {
 *   await transport.close();
 * }
 */
export async function openTransport(target: Target | string, options: OpenOptions = {}): Promise<Transport> {
  const to = typeof target === "string" ? parseTarget(target) : target;
  if (options.signal?.aborted) throw new VirtError("ERR_ABORTED", `connecting to ${showTarget(to)} was given up`);
  switch (to.kind) {
    case "ssh":
      return openSsh(to, options);
    case "tls":
      return openTls(to, options);
    case "unix":
      return openUnix(to, options);
  }
}
