/**
 * Enrolment: two hosts learn each other's keys by a code that a person carries from one to the other. The code is used once,
 * ends after ten minutes or three wrong ones, and never crosses the wire. Each side proves to have it by a hash over both keys
 * and a secret of this very connection (RFC 9266), so that somebody in the middle, who has other keys and two connections,
 * cannot pass a proof on. He could only guess the code from one: 60 bits, each guess as costly as one scrypt. The client proves
 * first: whoever asks without knowing the code learns nothing to guess from.
 */
import { createHmac, randomBytes, scryptSync, timingSafeEqual } from "node:crypto";
import { rmSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { VirtError } from "../../errors.js";
import { configurationDirectory } from "../../pod/paths.js";
import { loadIdentity, readPrivate, replacePrivate } from "./identity.js";
import { readLine } from "./line.js";
import { rememberPeer, withPeersLocked } from "./peers.js";
import { showTarget, type Target } from "./target.js";
import { connectSecurely, parseLine, peerFingerprint, protocols } from "./tls.js";
import type { OpenOptions } from "./transport.js";

/** How long a code is good for. */
export const codeValidMs = 10 * 60_000;
const mostTries = 3;
const answerLimitMs = 15_000;

/** Without letters that look like digits, and without U: 5 bits each. */
const letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const codeLetters = 12;

/** `enroll.json`: the code itself is not in it, but what both proofs are made with. */
interface Offer {
  state: "open" | "used" | "void";
  /** Hex; empty when no longer open. */
  key: string;
  madeAt: number;
  endsAt: number;
  triesLeft: number;
}

function offerFile(): string {
  return join(configurationDirectory(), "enroll.json");
}

/**
 * Makes a code, in place of one that was made before. Whichever agent of this user runs takes it.
 *
 * @example
 * const code = await offerEnrolment(); // "K7QM-2XPD-9F3H"
 */
export async function offerEnrolment(validMs = codeValidMs): Promise<string> {
  const code = [...randomBytes(codeLetters)].map((byte) => letters[byte & 31]).join("");
  const key = keyOf(code, loadIdentity().fingerprint).toString("hex");
  const now = Date.now();
  await withPeersLocked(() =>
    saveOffer({ state: "open", key, madeAt: now, endsAt: now + validMs, triesLeft: mostTries }),
  );
  return code.replace(/.{4}(?=.)/g, "$&-");
}

/** Takes an offer back, if there is one. */
export async function withdrawEnrolment(): Promise<void> {
  await withPeersLocked(() => rmSync(offerFile(), { force: true }));
}

function saveOffer(offer: Offer): void {
  replacePrivate(offerFile(), `${JSON.stringify(offer)}\n`);
}

/** The agent's fingerprint is the salt: what is computed to guess one agent's code is of no use for another's. */
function keyOf(code: string, agent: string): Buffer {
  return scryptSync(code, agent, 32, { N: 2 ** 15, r: 8, p: 1, maxmem: 2 ** 26 });
}

/** As it was typed. Errors: ERR_USAGE. */
function normalise(code: string): string {
  const plain = code.toUpperCase().replace(/[\s-]/g, "").replaceAll("O", "0").replace(/[IL]/g, "1");
  if (plain.length === codeLetters && [...plain].every((letter) => letters.includes(letter))) return plain;
  throw new VirtError("ERR_USAGE", `that is no code: it has ${codeLetters} letters and digits`);
}

function proof(key: Buffer, side: "client" | "agent", client: string, agent: string, binding: Buffer): Buffer {
  return createHmac("sha256", key).update(`virt-run enroll ${side}\0${client}\0${agent}\0`).update(binding).digest();
}

/** A secret of this connection: the same at both ends, and at no other connection's. */
function bindingOf(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(32, "EXPORTER-virt-run-enroll", Buffer.alloc(0));
}

function isProof(given: unknown, expected: Buffer): boolean {
  if (typeof given !== "string" || !/^[0-9a-f]{64}$/.test(given)) return false;
  return timingSafeEqual(Buffer.from(given, "hex"), expected);
}

/** A name from outside. */
function nameFrom(given: unknown): string {
  return typeof given === "string" && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : "unnamed";
}

/** The agent's side of one connection, whose client has shown a key. Nothing is thrown: a stranger's failure is his own. */
export async function answerEnrolment(socket: TLSSocket, log: (text: string) => void): Promise<void> {
  try {
    const client = peerFingerprint(socket);
    const said = parseLine(await readLine(socket, answerLimitMs), "the client");
    if (client === undefined) throw new VirtError("ERR_ENROLL", "the client shows no key");
    const agent = loadIdentity().fingerprint;
    const name = nameFrom(said["name"]);
    const binding = bindingOf(socket);
    const answer = await withPeersLocked(() => {
      const { offer, why } = takeTry();
      if (offer === undefined) return { refused: why };
      const key = Buffer.from(offer.key, "hex");
      if (!isProof(said["proof"], proof(key, "client", client, agent, binding))) {
        return { refused: "wrong", triesLeft: offer.triesLeft };
      }
      rememberPeer({ fingerprint: client, name, client: true });
      saveOffer({ ...offer, state: "used", key: "" });
      return { proof: proof(key, "agent", client, agent, binding).toString("hex"), name: hostname() };
    });
    log(answer.proof === undefined ? `an enrolment was refused: ${answer.refused}` : `${name} ${client} is enrolled`);
    socket.end(`${JSON.stringify(answer)}\n`);
  } catch (e) {
    log(`an enrolment has failed: ${(e as Error).message}`);
    socket.destroy();
  }
}

/** One try less, on disk, before anything is compared: who is killed in between has used it up. */
function takeTry(): { offer?: Offer; why?: string } {
  const text = readPrivate(offerFile());
  if (text === undefined) return { why: "none" };
  const offer = JSON.parse(text) as Offer;
  const now = Date.now();
  if (offer.state !== "open") return { why: offer.state };
  if (now >= offer.endsAt || now < offer.madeAt) {
    rmSync(offerFile());
    return { why: "expired" };
  }
  const triesLeft = offer.triesLeft - 1;
  const left: Offer = { ...offer, triesLeft };
  saveOffer(triesLeft > 0 ? left : { ...left, state: "void", key: "" });
  return { offer: left };
}

const refusals: Record<string, string> = {
  none: "it expects nobody",
  used: "the code has been used",
  void: "the code is void: it was wrong too often",
  expired: "the code is too old",
};

/**
 * Enrolls this host with an agent: it may be moved to from here, and both know each other's keys. Errors: ERR_ENROLL,
 * ERR_USAGE for what is no code, and those of reaching it (ERR_UNREACHABLE, ERR_TRANSPORT …).
 *
 * @example
 * const { fingerprint } = await enroll({ kind: "tls", host: "b", port: 7420 }, "K7QM-2XPD-9F3H");
 */
export async function enroll(
  target: Extract<Target, { kind: "tls" }>,
  code: string,
  options: OpenOptions = {},
): Promise<{ fingerprint: string; name: string }> {
  const plain = normalise(code);
  const where = showTarget(target);
  const identity = loadIdentity();
  const no = (why: string) => new VirtError("ERR_ENROLL", `${where} was not enrolled: ${why}`, { path: where });
  const socket = await connectSecurely(target, identity, protocols.enroll, options);
  try {
    const agent = peerFingerprint(socket);
    if (agent === undefined) throw no("it shows no key");
    const key = keyOf(plain, agent);
    const binding = bindingOf(socket);
    const own = proof(key, "client", identity.fingerprint, agent, binding).toString("hex");
    socket.write(`${JSON.stringify({ proof: own, name: hostname() })}\n`);
    const said = parseLine(await readLine(socket, answerLimitMs, options.signal), where);
    if (said["refused"] === "wrong")
      throw no(`the code is wrong; it may be tried ${Number(said["triesLeft"])} times more`);
    if (said["refused"] !== undefined) throw no(refusals[String(said["refused"])] ?? "it has refused");
    if (!isProof(said["proof"], proof(key, "agent", identity.fingerprint, agent, binding))) {
      throw no("whoever answers there does not know the code");
    }
    const name = nameFrom(said["name"]);
    await withPeersLocked(() => rememberPeer({ fingerprint: agent, name, agent: where }));
    return { fingerprint: agent, name };
  } finally {
    socket.destroy();
  }
}
