/**
 * Pods that come from another host: the target's side of a move made of real images and pods. What belongs to a move lies in
 * the directory of moves under the move's id, where no name of an image leads.
 */
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Blocker, VirtError } from "../errors.js";
import { describeHost } from "../image/host.js";
import { openImage } from "../image/image.js";
import { movesDirectory } from "../pod/paths.js";
import { checkHere, type Parked, park } from "../pod/reattach.js";
import { checkName, isListening, loadRecord, readExit, tryConnect } from "../pod/store.js";
import { translatePath } from "../remap/path.js";
import { type ArrivalOptions, decodeDraft, decodeOptions } from "./draft.js";
import type { Offer, ParkedPod, TargetPods } from "./parts.js";

/** What is missing here, or another than there, can come along if it is one of these. */
const canCome = new Set(["ERR_MISSING_FILE", "ERR_CHANGED_FILE"]);

export class Arriving implements TargetPods {
  readonly #options = new Map<string, string>();
  readonly #directories = new Map<string, number>();
  async check({ move, draft, pod }: Offer): Promise<{ blockers: Blocker[]; facts: Record<string, unknown> }> {
    const { manifest, options } = decodeDraft(draft);
    this.#options.set(move, JSON.stringify(options));
    const { blockers, remaps } = await checkHere(manifest, options);
    const lacking = new Set(blockers.flatMap((b) => (canCome.has(b.code) && b.path !== undefined ? [b.path] : [])));
    // A blocker says where it was looked for here, the source knows what the pod calls it.
    const wanted = manifest.files.flatMap(({ path }) =>
      lacking.has(path) || lacking.has(translatePath(remaps, path)) ? [path] : [],
    );
    // Nobody holds connections before the pod stands still; whether their holder is reached is found when it is built.
    const promised = manifest.holder?.reach === undefined ? [] : ["ERR_CONNECTION"];
    const rest = blockers.filter((b) => !promised.includes(b.code) && (!canCome.has(b.code) || b.path === undefined));
    return {
      blockers: [...rest, ...nameTaken(options.name ?? pod.name, pod.id)],
      facts: { wanted, ...describeHost() },
    };
  }

  async receive(move: string): Promise<{ directoryFd: number }> {
    const directory = imageOf(move);
    mkdirSync(directory, { mode: 0o700 });
    writeFileSync(optionsOf(move), this.#options.get(move) ?? "{}", { mode: 0o600, flag: "wx" });
    const directoryFd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
    this.#directories.set(move, directoryFd);
    return { directoryFd };
  }

  async build(move: string, lineage: string, epoch: number): Promise<ParkedPod> {
    this.#closeDirectory(move);
    const image = await openImage(imageOf(move));
    const options: ArrivalOptions = decodeOptions(readFileSync(optionsOf(move), "utf8"));
    // From "prepared" on it may be the only copy.
    const synced = syncAll(image.path);
    synced.catch(() => {}); // if the pod cannot be built at all
    const parked = await park(image, { ...options, stdio: "log" }, { lineage, epoch });
    try {
      await synced;
    } catch (e) {
      await parked.discard();
      throw e;
    }
    return new ParkedHere(parked);
  }

  async ran(id: string): Promise<boolean> {
    const record = loadRecord(id);
    if (!record) return false;
    let patience = 200;
    for (;;) {
      const connection = tryConnect(record.socket);
      if (connection) {
        try {
          if (!(await connection.hello()).rebuilding) return true;
        } catch (e) {
          if ((e as VirtError).code !== "ERR_POD_GONE") throw e;
        } finally {
          connection.close();
        }
      } else {
        // An init whose pod was parked when its maker died has ended too, and says so: that is no end of a pod that ran.
        const exit = readExit(id);
        if (exit) return !exit.lost;
        if (--patience === 0) return false; // it was killed itself; one that is ending writes it down in a moment
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async runs(id: string): Promise<boolean> {
    const record = loadRecord(id);
    return record !== undefined && isListening(record.socket);
  }

  async discard(move: string): Promise<void> {
    this.#closeDirectory(move);
    rmSync(imageOf(move), { recursive: true, force: true });
    rmSync(optionsOf(move), { force: true });
  }

  #closeDirectory(move: string): void {
    const fd = this.#directories.get(move);
    if (fd !== undefined) closeSync(fd);
    this.#directories.delete(move);
  }
}

async function syncAll(directory: string): Promise<void> {
  const names = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = [directory, ...names.map((e) => join(e.parentPath ?? e.path, e.name))];
  await Promise.all(
    paths.map(async (path) => {
      const file = await open(path);
      await file.sync().finally(() => file.close());
    }),
  );
}

class ParkedHere implements ParkedPod {
  constructor(private readonly parked: Parked) {}
  get id(): string {
    return this.parked.id;
  }
  get name(): string {
    return this.parked.name;
  }
  get notes(): readonly string[] {
    return this.parked.notes;
  }
  async commit(): Promise<void> {
    (await this.parked.commit()).disconnect();
  }
  close(): Promise<void> {
    return this.parked.discard();
  }
}

const imageOf = (move: string) => join(movesDirectory(), `${move}.image`);
const optionsOf = (move: string) => join(movesDirectory(), `${move}.options`);

function nameTaken(name: string, leaving: string): Blocker[] {
  if (name === leaving) return [];
  try {
    checkName(name);
    return [];
  } catch (e) {
    // A host may move a pod to itself: its own name is free by then.
    const { code, message } = e as VirtError;
    return existsSync(imageOf(leaving)) ? [] : [{ code, message, hint: "say --name" }];
  }
}
