/**
 * A self-signed certificate, as little of X.509 (RFC 5280) as TLS needs. Nobody reads what it says: hosts know one another by
 * the hash of the public key in it, so it has no names that mean anything, and no end.
 */
import { createHash, createPublicKey, type KeyObject, randomBytes, sign, X509Certificate } from "node:crypto";

/** DER: a tag, a length, what is in it. */
function der(tag: number, ...parts: Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  let length = Buffer.from([body.length]);
  if (body.length > 0x7f) {
    const digits = Buffer.alloc(4);
    digits.writeUInt32BE(body.length);
    const short = digits.subarray(digits.findIndex((byte) => byte !== 0));
    length = Buffer.concat([Buffer.from([0x80 | short.length]), short]);
  }
  return Buffer.concat([Buffer.from([tag]), length, body]);
}

const sequence = (...parts: Uint8Array[]) => der(0x30, ...parts);
const integer = (bytes: Uint8Array) => der(0x02, bytes);
const bits = (bytes: Uint8Array) => der(0x03, Buffer.from([0]), bytes);

/** Object identifiers as they are encoded. */
const ecdsaWithSha256 = Buffer.from("06082a8648ce3d040302", "hex");
const commonName = Buffer.from("0603550403", "hex");

/** Gives it as PEM. `privateKey`: one of an elliptic curve. */
export function selfSignedCertificate(privateKey: KeyObject): string {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40; // positive, and no byte too long
  const name = sequence(der(0x31, sequence(commonName, der(0x0c, Buffer.from("virt-run")))));
  const algorithm = sequence(ecdsaWithSha256);
  const validity = sequence(der(0x17, Buffer.from("200101000000Z")), der(0x18, Buffer.from("99991231235959Z")));
  const publicKey = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  const version3 = der(0xa0, integer(Buffer.from([2])));
  const content = sequence(version3, integer(serial), algorithm, name, validity, name, publicKey);
  const certificate = sequence(content, algorithm, bits(sign("sha256", content, privateKey)));
  return new X509Certificate(certificate).toString();
}

/** What a host is known by: "SHA256:" and the hash of its public key (SubjectPublicKeyInfo), as ssh-keygen shows its own. */
export function fingerprintOf(certificate: X509Certificate): string {
  return `SHA256:${createHash("sha256").update(publicKeyOf(certificate)).digest("base64").replace(/=+$/, "")}`;
}

function publicKeyOf(certificate: X509Certificate): Buffer {
  return certificate.publicKey.export({ type: "spki", format: "der" });
}
