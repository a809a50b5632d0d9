/**
 * Small files that are whole and on the disk, or as they were, whatever happens; and locks that end with their process.
 */
import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { VirtError } from "../errors.js";
import { native } from "../native.js";

/** Where a ledger keeps its notes. Names are letters, digits and "-". */
export interface NoteStore {
  /** The text of a note; undefined if there is none. */
  read(name: string): Promise<string | undefined>;
  /** When this resolves the note outlives a loss of power. If it rejects, it may be the old or the new one that is read. */
  write(name: string, text: string): Promise<void>;
  /** Names of all notes. */
  list(): Promise<string[]>;
  /** Gives the function that ends the lock; undefined while somebody else has it. Nobody has the lock of a process that died. */
  lock(name: string): Promise<(() => void) | undefined>;
}

/**
 * Notes in a private directory (movesDirectory()). Errors: ERR_SYSCALL.
 *
 * @example
 * const ledger = new Ledger(new NoteDirectory(movesDirectory()));
 */
export class NoteDirectory implements NoteStore {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async read(name: string): Promise<string | undefined> {
    try {
      return readFileSync(this.#path(name), "utf8");
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw failed("read", name, e);
    }
  }

  async write(name: string, text: string): Promise<void> {
    const path = this.#path(name);
    try {
      // Writers of one note have its lock, so the temporary name is nobody else's; what is left there by a crash is overwritten.
      const fd = openSync(`${path}.new`, "w", 0o600);
      try {
        writeSync(fd, text);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(`${path}.new`, path);
      const directory = openSync(this.#directory, "r");
      try {
        fsyncSync(directory);
      } finally {
        closeSync(directory);
      }
    } catch (e) {
      throw failed("written", name, e);
    }
  }

  async list(): Promise<string[]> {
    return readdirSync(this.#directory).flatMap((file) => /^([A-Za-z0-9-]+)\.json$/.exec(file)?.[1] ?? []);
  }

  async lock(name: string): Promise<(() => void) | undefined> {
    // Its file stays: removing it would let two processes lock two files of one name.
    const fd = openSync(join(this.#directory, `${name}.lock`), "a", 0o600);
    if (native.tryLock(fd)) return () => closeSync(fd);
    closeSync(fd);
    return undefined;
  }

  #path(name: string): string {
    if (!/^[A-Za-z0-9-]+$/.test(name)) throw new VirtError("ERR_BUG", `'${name}' is no name of a note`);
    return join(this.#directory, `${name}.json`);
  }
}

function failed(what: string, name: string, cause: unknown): VirtError {
  const { code, syscall, path, message } = cause as NodeJS.ErrnoException;
  return new VirtError("ERR_SYSCALL", `the note ${name} of a move cannot be ${what}: ${message}`, {
    syscall,
    errnoName: code,
    path,
    cause,
  });
}
