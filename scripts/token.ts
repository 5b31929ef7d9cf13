import { openIssuer } from "../src/host/devIssuer";
import { readFlags } from "../src/host/flags";
import { UserMistake } from "../src/host/errors";
import { DEV_ISSUER } from "./issuer";
import type { Main } from "./main";

/** Prints a development token for a user and nothing else; the server need not run. */
export const main: Main = async (argv, io) => {
  try {
    const { dataDir, rest } = readFlags(argv, io.projectDir);
    const [user, ...more] = rest;
    if (user === undefined || user === "" || more.length > 0)
      throw new UserMistake("Usage: npm run -s token -- <user> [--data-dir dir]");
    io.print(await (await openIssuer(dataDir, DEV_ISSUER)).token(user));
    return 0;
  } catch (error) {
    if (!(error instanceof UserMistake)) throw error;
    io.printError(error.message);
    return 1;
  }
};
