import { runHost } from "../src/host/cli";
import { ballast } from "./ballast";
import type { Main } from "./main";

/** `npm start` and `npm run host -- run|reset`. */
export const main: Main = async (argv, io) => runHost(argv, io, ballast(io.projectDir));
