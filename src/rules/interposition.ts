/**
 * What of a pod's calls is interposed, put together of what its record says: recording, rules, remapped ports and
 * addresses, hooks.
 */
import { addressRules } from "../remap/address.js";
import { encodeRules } from "./encode.js";
import { type CallName, compileRules, kindsNamed, type Rule } from "./rules.js";

/** What of the pod's effects goes into its journal. */
export type Recording = "none" | "default" | "all";

/** The part of a pod's record, and of an image's, that says it. */
export interface Interposition {
  record?: Recording | undefined;
  rules?: Rule[] | undefined;
  /** Ports of the pod and what they are on this host. */
  ports?: Record<string, number> | undefined;
  /** Addresses of the pod and what they are on this host. */
  addresses?: Record<string, string> | undefined;
  /** Calls that rules may be about which are set later. */
  cover?: CallName[] | undefined;
  /** What hooks are asked about: rules that say `ask`. */
  hooks?: Rule[] | undefined;
}

/** As the native half takes it. Errors: ERR_RULE. */
export function nativeInterposition(of: Interposition): {
  record: Recording;
  rules: Buffer;
  covered: number;
  hooked: boolean;
} {
  return {
    record: of.record ?? "none",
    rules: rulesOf(of),
    covered: kindsNamed(of.cover ?? [], "'cover'"),
    hooked: (of.hooks ?? []).length > 0 || (of.rules ?? []).some((rule) => rule.ask),
  };
}

/** The user's own rules come first, and may except what the others say. */
export function rulesOf(of: Interposition): Buffer {
  // Told apart, so that a rule's number in an error is the user's.
  const own = compileRules(of.rules ?? []);
  const derived = compileRules([...addressRules(of.ports ?? {}, of.addresses ?? {}), ...(of.hooks ?? [])]);
  return own.length + derived.length === 0 ? Buffer.alloc(0) : encodeRules([...own, ...derived]);
}
