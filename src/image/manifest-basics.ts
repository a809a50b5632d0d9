/**
 * What the manifest's schemas are made of.
 */
import * as v from "valibot";

export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const decimal = v.pipe(v.string(), v.regex(/^-?\d{1,20}$/));
export const absolutePath = v.pipe(
  v.string(),
  v.startsWith("/"),
  v.maxLength(4096),
  v.check((s) => !s.includes("\0")),
);
export const bytes = v.instance(Buffer);
export const optional = v.exactOptional;
