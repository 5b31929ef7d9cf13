/** That each knob governs what it says: another value makes another behaviour. */
import { afterEach, expect, test, vi } from "vitest";
import { KNOB_NAMES, type KnobName, knobRow } from "../../src/config/knobs";
import { useStillClock, START_MS } from "./backend";
import { CHAT } from "./knobs/chat";
import { GUARDS } from "./knobs/guards";
import { OPERATORS } from "./knobs/operators";
import type { Proof, Proofs } from "./knobs/proof";
import { TOOLS } from "./knobs/tools";

useStillClock();
afterEach(() => {
  vi.unstubAllGlobals();
});

const PROOFS: Proofs = { ...CHAT, ...GUARDS, ...OPERATORS, ...TOOLS };

/** What these govern comes with the connection of mailboxes and phones; the snapshot shows them. */
const AHEAD: readonly KnobName[] = [
  "GMAIL_PUBSUB_TOPIC",
  "RATE_LIMIT_GMAIL_OAUTH_MAX",
  "RATE_LIMIT_GMAIL_OAUTH_WINDOW_MS",
  "RATE_LIMIT_WA_LINK_CODE_MAX",
  "RATE_LIMIT_WA_LINK_CODE_WINDOW_MS",
];

// What knobs that guard something do is in misconfigured.test.ts.
test("every knob that tunes something is proved to, or named as one that is ahead of its use", () => {
  const tuning = KNOB_NAMES.filter((name) => !knobRow(name).security);
  expect([...Object.keys(PROOFS), ...AHEAD].sort()).toEqual([...tuning].sort());
});

async function seen(name: string, value: string, { observe }: Proof): Promise<unknown> {
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
  vi.unstubAllEnvs();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  vi.spyOn(console, "log").mockReturnValue(undefined);
  vi.stubEnv(name, value);
  const found = await observe();
  if (vi.isFakeTimers()) vi.clearAllTimers();
  expect([...platformObjects(found)]).toEqual([]);
  return found;
}

/**
 * The names of the classes of a finding that are the platform's, such as an AbortSignal. Whether two
 * of these are equal depends on what a version of Node keeps inside them, not on what the app did.
 */
function* platformObjects(found: unknown): Iterable<string> {
  if (typeof found !== "object" || found === null) return;
  const name = Object.prototype.toString.call(found).slice("[object ".length, -1);
  if (name !== "Object" && name !== "Array") yield name;
  else for (const value of Object.values(found)) yield* platformObjects(value);
}

test.each(Object.entries(PROOFS))("%s changes what happens", async (name, proof) => {
  const [one, other] = proof.values;
  const first = await seen(name, one, proof);
  // The same again: what differs below differs for no other reason than the value.
  expect(await seen(name, one, proof)).toEqual(first);
  expect(await seen(name, other, proof)).not.toEqual(first);
});
