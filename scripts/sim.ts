import { runSim, type SimIo } from "../src/sim/cli";

/** `npm run sim -- <command>`: faults, state and test deliveries for a running deployment. */
export function main(argv: readonly string[], io: SimIo): Promise<number> {
  return runSim(argv, io);
}
