/**
 * The way to a unix socket: somebody of this host who passes the stream on, or a test.
 */
import { connect } from "node:net";
import { VirtError } from "../../errors.js";
import { pumpStream } from "./stream.js";
import { showTarget, type Target } from "./target.js";
import { cut } from "./tls.js";
import type { OpenOptions, Transport } from "./transport.js";

/** Errors: ERR_UNREACHABLE, ERR_ABORTED. */
export async function openUnix(
  target: Extract<Target, { kind: "unix" }>,
  options: OpenOptions = {},
): Promise<Transport> {
  const where = showTarget(target);
  const { signal } = options;
  const socket = connect({ path: target.path, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    const abort = () => socket.destroy(new VirtError("ERR_ABORTED", `connecting to ${where} was given up`));
    const fail = (e: NodeJS.ErrnoException) => {
      signal?.removeEventListener("abort", abort);
      const details = { path: where, errnoName: e.code, cause: e };
      const why = `${where} cannot be reached: ${e.code}`;
      reject(e instanceof VirtError ? e : new VirtError("ERR_UNREACHABLE", why, details));
    };
    signal?.addEventListener("abort", abort, { once: true });
    socket.once("error", fail).once("connect", () => {
      signal?.removeEventListener("abort", abort);
      socket.off("error", fail);
      resolve();
    });
  });
  const pumped = pumpStream(socket);
  return { ...pumped, failure: pumped.ended.then((e) => e && cut(where, e)), describe: () => where };
}
