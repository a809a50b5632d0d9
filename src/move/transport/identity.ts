/**
 * This user's key on this host, by which agents and their clients know it: made on first use, never sent anywhere.
 */
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { VirtError } from "../../errors.js";
import { configurationDirectory } from "../../pod/paths.js";
import { fingerprintOf, selfSignedCertificate } from "./certificate.js";

export interface Identity {
  /** Private key and certificate, PEM. */
  key: string;
  cert: string;
  fingerprint: string;
}

/** Errors: ERR_UNSAFE_PATH if others may have read or written it. */
export function loadIdentity(): Identity {
  const path = join(configurationDirectory(), "identity.pem");
  const pem = readPrivate(path) ?? makeIdentity(path);
  const [key = "", cert = ""] = pem.match(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----\n/g) ?? [];
  try {
    return { key, cert, fingerprint: fingerprintOf(new X509Certificate(cert)) };
  } catch (e) {
    const hint = "remove it: a new one is made, and hosts have to be enrolled again";
    throw new VirtError("ERR_BAD_VALUE", `${path} is no key with a certificate`, { path, hint, cause: e });
  }
}

function makeIdentity(path: string): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }) + selfSignedCertificate(privateKey);
  const made = `${path}.${process.pid}`;
  writePrivate(made, pem);
  try {
    // Of two that make one at the same time the first wins; never is half a file seen.
    linkSync(made, path);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== "EEXIST") throw e;
  } finally {
    rmSync(made, { force: true });
  }
  syncDirectory(dirname(path));
  return readPrivate(path) ?? pem;
}

/** A file of the configuration, or nothing if there is none. Errors: ERR_UNSAFE_PATH if it is not ours alone. */
export function readPrivate(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw e;
  }
  try {
    const st = fstatSync(fd);
    if (!st.isFile() || st.uid !== process.geteuid?.() || (st.mode & 0o077) !== 0) {
      const hint = "somebody else may have read or changed it: remove it, and enroll hosts again";
      throw new VirtError("ERR_UNSAFE_PATH", `${path} is not a private file of this user (mode 0600)`, { path, hint });
    }
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** Replaces a file of the configuration; it is on disk when this returns. */
export function replacePrivate(path: string, text: string): void {
  const made = `${path}.${process.pid}`;
  writePrivate(made, text);
  renameSync(made, path);
  syncDirectory(dirname(path));
}

function writePrivate(path: string, text: string): void {
  rmSync(path, { force: true }); // of one that was killed
  const fd = openSync(path, "wx", 0o600);
  try {
    fchmodSync(fd, 0o600); // whatever the umask says
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
