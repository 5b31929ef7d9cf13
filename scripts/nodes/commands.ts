import { readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ChatClient } from "../../src/client/chatStream";
import { readDeployment } from "../../src/host/deployment";
import { type Asked, Child, ran } from "./child";
import type { CommandName, Result } from "./plan";

const TEST_MS_MAX = 45 * 60_000;
/** With the installation of packages, where `npm test` was not run before. */
const START_MS_MAX = 10 * 60_000;
const TOKEN_MS_MAX = 60_000;
const TURN_MS_MAX = 60_000;
const LOOK_MS = 200;
/** Names of failed tests that are told; the rest are in the log. */
const FAILED_MAX = 5;

/** Where a command runs, and on which Node: the first one of the environment's path. */
export type Place = Omit<Asked, "command">;

/** Runs one of the two commands as a newcomer does, and says what became of it. */
export async function tryCommand(name: CommandName, place: Place): Promise<Result> {
  const startedAtMs = Date.now();
  const why = await { test: testFailure, start: startFailure }[name](place);
  const durationMs = Date.now() - startedAtMs;
  return why === null ? { kind: "passed", durationMs } : { kind: "failed", durationMs, why };
}

async function testFailure(place: Place): Promise<string | null> {
  const { code } = await ran({ ...place, command: ["npm", "test"] }, TEST_MS_MAX);
  if (code === 0) return null;
  const failed = failedTests(await readFile(place.logFile, "utf8")).slice(0, FAILED_MAX);
  const ended = code === null ? "was ended before its time" : `exit code ${code}`;
  return [`${ended}, see ${place.logFile}`, ...failed].join("; ");
}

/** The names of the tests that failed, from what the test runner said. */
export function failedTests(said: string): string[] {
  // Colours, which tests that make processes of their own may switch on.
  const plain = said.replace(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g"), "");
  const names = [...plain.matchAll(/^\s*FAIL\s+(.+?)\s*$/gm)].map(([, name = ""]) => name);
  return [...new Set(names)];
}

async function startFailure(place: Place): Promise<string | null> {
  const free = ["--port", "0", "--site-port", "0"];
  const server = new Child({ ...place, command: ["npm", "start", "--", ...free] });
  try {
    const siteUrl = await answering(server, place);
    if (siteUrl === null) return `it did not answer, see ${place.logFile}`;
    const ending = await turn(siteUrl, place).catch(
      (error: unknown) => `an error: ${error instanceof Error ? error.message : String(error)}`,
    );
    if (ending !== "done") return `a chat turn ended with ${ending}, see ${place.logFile}`;
    if (!(await server.interrupt())) return `it did not end when it was told to`;
    return (await isHealthy(siteUrl)) ? "it answers after its end" : null;
  } finally {
    await server.interrupt();
  }
}

/** The address of its routes once its health route answers; null where it ended or took too long. */
async function answering(server: Child, { dir }: Place): Promise<string | null> {
  const endMs = Date.now() + START_MS_MAX;
  while (!server.hasEnded && Date.now() < endMs) {
    const deployment = await readDeployment(path.join(dir, ".ballast"));
    if (deployment !== null && (await isHealthy(deployment.siteUrl))) return deployment.siteUrl;
    await sleep(LOOK_MS);
  }
  return null;
}

const isHealthy = async (siteUrl: string): Promise<boolean> =>
  await fetch(`${siteUrl}/api/health`).then(
    ({ ok }) => ok,
    () => false,
  );

/** Streams one turn; the type of its last event. */
async function turn(siteUrl: string, place: Place): Promise<string> {
  const command = ["npm", "run", "-s", "token", "--", "newcomer"] as const;
  const { tail } = await ran({ ...place, command: [...command] }, TOKEN_MS_MAX);
  const client = new ChatClient({ siteUrl, token: () => tail.trim() });
  const signal = AbortSignal.any([place.stopped, AbortSignal.timeout(TURN_MS_MAX)]);
  let last = "no event";
  for await (const step of client.send({ message: { content: "Hello" } }, { signal }))
    if ("event" in step) last = step.event.type;
  return last;
}
