import { rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { STEPS } from "./demo/steps";
import { NotSeen, World } from "./demo/world";
import type { Main } from "./main";

/** Between two steps, for whoever reads along. */
const READING_MS = 3_000;

/**
 * `npm run demo`: about a minute of what the backend does when things go wrong, on a server of its
 * own. Exit code 1 when a step does not happen.
 */
export const main: Main = async (_argv, io) => {
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
  const interrupted = () => void world.kill("SIGKILL").then(() => process.exit(130));
  process.once("SIGINT", interrupted);
  try {
    io.print("A backend of its own starts, with simulated providers…");
    await world.start();
    say(`ready    ${world.siteUrl}`);
    for (const [i, step] of STEPS.entries()) {
      io.print(`\n${i + 1}. ${step.title}`);
      await step.run(world, say);
      await sleep(READING_MS);
    }
    await world.kill("SIGTERM");
    await rm(dataDir, { recursive: true, force: true });
    io.print("\nEverything happened as told. Start your own: npm start");
    return 0;
  } catch (error) {
    await world.kill("SIGKILL");
    if (!(error instanceof NotSeen)) throw error;
    io.printError(`\nThis did not happen: ${error.message}`);
    io.printError(`The data is kept in ${path.relative(io.projectDir, dataDir)}.`);
    return 1;
  } finally {
    process.off("SIGINT", interrupted);
  }
};
