import { runSim } from "../src/sim/cli";
import type { Main } from "./main";

/** `npm run sim -- <command>`: faults, state and test deliveries for a running deployment. */
export const main: Main = (argv, io) =>
  runSim(argv, {
    print: (line) => {
      io.print(line);
    },
    printError: (line) => {
      io.printError(line);
    },
    env: io.processEnvironment,
    cwd: io.projectDir,
    now: Date.now,
  });
