import { randomUUID } from "node:crypto";
import { mkdir, readFile, rm, rmdir, stat, writeFile } from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { UserMistake } from "./errors";

interface Holder {
  readonly pid: number;
  readonly port: number;
  readonly token: string;
}

const FILE = "lock.json";
const ANSWER_MS_MAX = 1_000;
/** Taking over a dead holder's lock is a few file operations; longer means that the taker died too. */
const TAKEOVER_MS_MAX = 10_000;
const TAKEOVER_POLL_MS = 50;

/**
 * Holds a directory for this process. The holder answers on a loopback port with a token noted in
 * the directory, so a lock left by `kill -9` is recognised even when its process id is in use again.
 */
export async function lockDirectory(dir: string): Promise<() => Promise<void>> {
  const token = randomUUID();
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(token);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  server.unref();
  const { port } = server.address() as net.AddressInfo;
  const file = path.join(dir, FILE);
  try {
    await take(dir, { pid: process.pid, port, token });
  } catch (error) {
    server.close();
    throw error;
  }
  return async () => {
    await rm(file, { force: true });
    await new Promise<void>((resolve) => {
      server.close(() => {
        resolve();
      });
    });
  };
}

/** The process that holds a directory, or null. */
export async function holderOf(dir: string): Promise<number | null> {
  const holder = await readHolder(path.join(dir, FILE));
  return holder !== null && (await isAlive(holder)) ? holder.pid : null;
}

async function take(dir: string, self: Holder): Promise<void> {
  const guard = path.join(dir, "lock.takeover");
  await enterGuard(guard);
  try {
    const pid = await holderOf(dir);
    if (pid !== null)
      throw new UserMistake(
        `The data directory ${dir} is in use by process ${pid}; stop it or choose another with --data-dir.`,
      );
    await writeFile(path.join(dir, FILE), JSON.stringify(self), { mode: 0o600 });
  } finally {
    await rmdir(guard).catch(() => undefined);
  }
}

/** Two starts at the same moment take their turn. */
async function enterGuard(guard: string): Promise<void> {
  for (;;) {
    try {
      await mkdir(guard);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const ageMs = await stat(guard).then(
      (found) => Date.now() - found.mtimeMs,
      () => 0,
    );
    if (ageMs > TAKEOVER_MS_MAX) await rmdir(guard).catch(() => undefined);
    else await sleep(TAKEOVER_POLL_MS);
  }
}

async function readHolder(file: string): Promise<Holder | null> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Holder;
  } catch {
    return null;
  }
}

async function isAlive(holder: Holder): Promise<boolean> {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  return new Promise((resolve) => {
    const socket = net.connect(holder.port, "127.0.0.1");
    let said = "";
    socket.setEncoding("utf8");
    // Connected but silent: a holder that is stopped or busy. It still holds.
    socket.setTimeout(ANSWER_MS_MAX, () => {
      resolve(true);
      socket.destroy();
    });
    socket.on("data", (text: string) => {
      said += text;
    });
    socket.on("end", () => {
      resolve(said === holder.token);
      socket.destroy();
    });
    socket.on("error", () => {
      resolve(false);
    });
  });
}
