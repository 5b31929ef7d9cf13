import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Say, STEPS } from "./demo/steps";
import { NotSeen, World } from "./demo/world";
import type { Io, Main } from "./main";

/** Between two steps, for whoever reads along. */
const READING_MS = 8_000;

const USAGE = "Usage: npm run demo. It takes no flags, and a minute.";
const EXIT_INTERRUPTED = 130;

/**
 * `npm run demo`: about a minute of what the backend does when things go wrong, on a server of its
 * own. Exit code 1 when a step does not happen.
 */
export const main: Main = async (argv, io) => {
  const isHelp = argv.includes("--help") || argv.includes("-h");
  if (argv.length > 0) {
    if (isHelp) io.print(USAGE);
    else io.printError(USAGE);
    return isHelp ? 0 : 1;
  }
  const startedAtMs = Date.now();
  const dataDir = path.join(io.projectDir, ".output", `demo-${startedAtMs}`);
  const world = new World({
    projectDir: io.projectDir,
    dataDir,
    environment: io.processEnvironment,
  });
  const say = (line: string): void => {
    const seconds = ((Date.now() - startedAtMs) / 1_000).toFixed(1).padStart(5);
    io.print(`${seconds} s   ${line}`);
  };
  const told = tell({ world, say, io });
  // Whoever is asked to end ends the server too, wherever in the story that is.
  const interrupted = io.stopped.then(() => EXIT_INTERRUPTED);
  const code = await Promise.race([told, interrupted]).catch((error: unknown) => {
    io.printError(`\nThis did not happen: ${whyOf(error)}`);
    io.printError(`The data is kept in ${path.relative(io.projectDir, dataDir)}.`);
    return 1;
  });
  await world.close();
  if (code !== 1) await rm(dataDir, { recursive: true, force: true });
  if (code === EXIT_INTERRUPTED) {
    // What the story still waits for fails for want of a server, and nobody is to hear of it.
    await told.catch(() => undefined);
    io.printError("\nInterrupted; the server and its data are gone.");
  }
  if (code === 0) io.print("\nEverything happened as told. Start your own: npm start");
  return code;
};

interface Telling {
  readonly world: World;
  readonly say: Say;
  readonly io: Pick<Io, "print">;
}

async function tell({ world, say, io }: Telling): Promise<number> {
  io.print("A backend of its own starts, with simulated providers…");
  await world.start();
  say(`ready    ${world.siteUrl}`);
  for (const [i, step] of STEPS.entries()) {
    if (i > 0) await sleep(READING_MS);
    world.requireOpen();
    io.print(`\n${i + 1}. ${step.title}`);
    await step.run(world, say).catch((error: unknown) => {
      throw new NotSeen(`step ${i + 1}, ${step.title}: ${whyOf(error)}`);
    });
  }
  world.requireOpen();
  return 0;
}

/** One line; what a request failed of is in its cause. */
function whyOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
  return `${error.message}${cause}`;
}
