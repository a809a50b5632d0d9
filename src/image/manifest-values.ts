/**
 * The values a manifest is made of, with their bounds.
 */
import * as v from "valibot";
import { highestAddress } from "./format.js";

const mostPid = 2 ** 22;

export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const int = v.pipe(v.number(), v.safeInteger());
export const pid = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(mostPid));
export const fdNumber = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(2 ** 30));
export const address = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(highestAddress));
export const hex = v.pipe(v.string(), v.regex(/^0x[0-9a-f]{1,16}$/));
export const decimal = v.pipe(v.string(), v.regex(/^-?\d{1,20}$/));
export const absolutePath = v.pipe(
  v.string(),
  v.startsWith("/"),
  v.maxLength(4096),
  v.check((s) => !s.includes("\0")),
);
export const bytes = v.instance(Buffer);
export const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
/** A file of the image that holds what another file held, by its hash. */
export const carriedName = v.pipe(v.string(), v.regex(/^files\/[0-9a-f]{64}$/));
export const optional = v.exactOptional;
export const run = v.union([v.strictTuple([count, count, count]), v.strictTuple([count, count, count, v.literal(1)])]);
