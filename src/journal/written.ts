/**
 * Which paths belong to a pod because it wrote there: its journal read from the first line to the last, with what was
 * renamed under its new name and what was removed left out.
 */
import type { Effect } from "./journal.js";

/** A path that a pod has written, as the pod sees it. Whether something is there still is for who looks. */
export interface WrittenPath {
  path: string;
  /** It was written through this name: what a symbolic link of that name leads to was meant. */
  follow?: boolean;
  /** A directory that was moved here with everything in it. */
  tree?: boolean;
}

/** What a pod has written in all its lives, as far as it is known. */
export interface Written {
  paths: WrittenPath[];
  /** The journal has lost lines: there may be more. */
  incomplete?: boolean;
}

interface Mark {
  follow: boolean;
  tree: boolean;
}

/** A directory or file of the paths so far; renames move whole branches. */
class Node {
  readonly children = new Map<string, Node>();
  mark: Mark | undefined;
}

class Paths {
  readonly #root = new Node();

  #find(path: string, make: boolean): { parent: Node; name: string } | undefined {
    const names = path.split("/").filter((n) => n !== "");
    const name = names.pop();
    // What was gone before its path could be made plain is of no use.
    if (name === undefined || !path.startsWith("/") || [...names, name].some((n) => n === "." || n === ".."))
      return undefined;
    let parent = this.#root;
    for (const n of names) {
      let next = parent.children.get(n);
      if (!next) {
        if (!make) return undefined;
        next = new Node();
        parent.children.set(n, next);
      }
      parent = next;
    }
    return { parent, name };
  }

  mark(path: string, mark: Mark): void {
    const place = this.#find(path, true);
    if (!place) return;
    const node = place.parent.children.get(place.name) ?? new Node();
    node.mark = { follow: mark.follow || (node.mark?.follow ?? false), tree: mark.tree || (node.mark?.tree ?? false) };
    place.parent.children.set(place.name, node);
  }

  /** Takes a branch out. */
  take(path: string): Node | undefined {
    const place = this.#find(path, false);
    const node = place?.parent.children.get(place.name);
    place?.parent.children.delete(place.name);
    return node;
  }

  put(path: string, node: Node): void {
    const place = this.#find(path, true);
    place?.parent.children.set(place.name, node);
  }

  *[Symbol.iterator](): Generator<WrittenPath> {
    const walk = function* (node: Node, path: string): Generator<WrittenPath> {
      if (node.mark)
        yield { path, ...(node.mark.follow ? { follow: true } : {}), ...(node.mark.tree ? { tree: true } : {}) };
      for (const [name, child] of node.children) yield* walk(child, `${path}/${name}`);
    };
    yield* walk(this.#root, "");
  }
}

/** The paths after these effects; `before` is what was known of the pod's earlier lives. */
export function writtenPaths(effects: Iterable<Effect>, before: Written = { paths: [] }): Written {
  const paths = new Paths();
  let incomplete = before.incomplete ?? false;
  for (const { path, follow = false, tree = false } of before.paths) paths.mark(path, { follow, tree });
  for (const e of effects) {
    switch (e.kind) {
      case "lost":
        incomplete = true;
        break;
      case "create":
      case "write":
      case "truncate":
      case "mode":
      case "owner":
        paths.mark(e.path, { follow: true, tree: false });
        break;
      case "make":
        paths.mark(e.path, { follow: false, tree: false });
        break;
      case "remove":
        paths.take(e.path);
        break;
      case "rename": {
        const from = paths.take(e.path);
        const replaced = paths.take(e.to);
        const moved = from ?? new Node();
        // What was there before the pod came may be a directory: nobody told what is in it.
        moved.mark ??= { follow: false, tree: true };
        paths.put(e.to, moved);
        // renameat2(2) may have exchanged the two; what is not there any more is not carried anyway.
        if (e.call === "renameat2") {
          const back = replaced ?? new Node();
          back.mark ??= { follow: false, tree: true };
          paths.put(e.path, back);
        }
        break;
      }
    }
  }
  return { paths: [...paths], ...(incomplete && { incomplete }) };
}
