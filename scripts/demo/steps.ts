import { setTimeout as sleep } from "node:timers/promises";
import { list, record, text } from "../../src/sim/json";
import { type ChatEvent, NotSeen, type World } from "./world";

/** Says one line of the story. */
export type Say = (line: string) => void;

export interface Step {
  readonly title: string;
  /** Does it and shows it; throws `NotSeen` where it did not happen. */
  readonly run: (world: World, say: Say) => Promise<void>;
}

const QUERY = "espresso machines";
const SEARCH = (query: string): string =>
  `[[tool:search_web ${JSON.stringify({ query })}]] [[words:24]] What is new in ${query}?`;
const LINE_CHARS = 60;
const LOOK_MS = 250;
/** A little over the time to live of a search result in the demo. */
const UNTIL_STALE_MS = 6_000;
const OUTAGE_TURNS_MAX = 8;
const DELIVERIES = 60;
/** Deliveries in flight when the server is killed. */
const IN_FLIGHT = 12;

const must = (seen: boolean, what: string): void => {
  if (!seen) throw new NotSeen(what);
};

const ending = (events: readonly ChatEvent[]): string => events.at(-1)?.type ?? "nothing";
const outputOf = (events: readonly ChatEvent[]): ChatEvent | undefined =>
  events.find(({ type }) => type === "tool-output-partially-available");

export const STEPS: readonly Step[] = [
  { title: "A chat turn streams, and uses a tool on the way", run: streamWithTool },
  { title: "The same webhook comes twice and has one effect", run: duplicateWebhook },
  { title: "The search provider fails until its circuit opens", run: outage },
  { title: "The old answer is served meanwhile, and marked as degraded", run: staleAnswer },
  { title: "One query says what is wrong and what to do", run: verdict },
  { title: "kill -9 under load, restart, nothing lost", run: killAndRestart },
];

async function streamWithTool(world: World, say: Say): Promise<void> {
  let line = "";
  const events = await world.chat(`[[slow:250]] ${SEARCH(QUERY)}`, (event) => {
    if (event.type === "tool-input-available") say(`tool     search_web "${QUERY}"`);
    if (event.type === "tool-output-partially-available") say("result   stored for five seconds");
    if (event.type !== "content") return;
    line += text(event["content"]);
    if (line.length < LINE_CHARS) return;
    say(`answer   ${line.trim()}`);
    line = "";
  });
  say(`answer   ${line.trim()}`);
  say(`ended    ${ending(events)}, after ${events.length} events`);
  must(outputOf(events)?.["degraded"] === false, "no result of the tool was seen");
  must(ending(events) === "done", `the turn ended as ${ending(events)}`);
}

async function duplicateWebhook(world: World, say: Say): Promise<void> {
  const id = "wamid.demo.twice";
  for (const time of ["first", "second"]) {
    const response = await world.deliver(id, "Is my parcel here?");
    const replay = response.headers.get("x-idempotent-replay");
    say(
      `${time.padEnd(8)} ${response.status}${replay === null ? "" : `, X-Idempotent-Replay: ${replay}`}`,
    );
    must(response.status === 200, `the ${time} delivery answered ${response.status}`);
    must((replay === "1") === (time === "second"), `the ${time} delivery was not told apart`);
  }
  const stored = await until(
    async () => (await world.storedMessages()).filter((one) => one === id).length,
    (count) => count > 0,
  );
  say(`stored   ${stored} message`);
  must(stored === 1, `${stored} messages were stored`);
}

async function outage(world: World, say: Say): Promise<void> {
  await world.fault("serper", { status: 503 });
  say("fault    every search answers 503 from now on");
  for (let turn = 1; turn <= OUTAGE_TURNS_MAX; turn++) {
    const before = await world.asked("serper");
    const events = await world.chat(SEARCH(`outage ${turn}`), () => undefined);
    const asked = (await world.asked("serper")) - before;
    const state = await circuitOf(world, "serper_search");
    say(
      `turn ${turn}   ${asked} requests went out, circuit ${state}, the turn ended as ${ending(events)}`,
    );
    must(ending(events) === "done", "a turn did not survive the outage");
    if (state !== "open") continue;
    const quiet = await world.asked("serper");
    await world.chat(SEARCH("anything else"), () => undefined);
    const more = (await world.asked("serper")) - quiet;
    say(`open     the next turn sent ${more} requests: the provider is left alone`);
    must(more === 0, "an open circuit let a request through");
    return;
  }
  throw new NotSeen("the circuit did not open");
}

async function circuitOf(world: World, provider: string): Promise<string> {
  const statuses = list(await world.query("circuitBreaker:listStatuses", {})).map(record);
  return text(statuses.find((status) => status["provider"] === provider)?.["state"]);
}

async function staleAnswer(world: World, say: Say): Promise<void> {
  say("waiting  until the first answer's result has expired");
  await sleep(UNTIL_STALE_MS);
  const events = await world.chat(SEARCH(QUERY), () => undefined);
  const output = outputOf(events);
  say(`served   degraded: ${String(output?.["degraded"])}, the turn ended as ${ending(events)}`);
  must(output?.["degraded"] === true, "the old result was not served as degraded");
  must(ending(events) === "done", `the turn ended as ${ending(events)}`);
}

async function verdict(world: World, say: Say): Promise<void> {
  const snapshot = record(await world.query("ops:getReliabilitySnapshot", { minutes: 15 }));
  const action = record(snapshot["nextAction"]);
  say(`verdict  ${text(snapshot["verdict"])}`);
  for (const reason of list(snapshot["reasons"]).slice(0, 3)) say(`because  ${text(reason)}`);
  say(`next     ${text(action["what"])}`);
  if (text(action["command"]) !== "") say(`         ${text(action["command"])}`);
  must(
    ["degraded", "critical"].includes(text(snapshot["verdict"])),
    "an open circuit was not seen",
  );
  must(text(action["what"]) !== "", "no next action was named");
}

async function killAndRestart(world: World, say: Say): Promise<void> {
  const acknowledged: string[] = [];
  const load = { sent: 0, dead: false };
  const isDead = (): boolean => load.dead;
  const sender = async (): Promise<void> => {
    while (load.sent < DELIVERIES && !isDead()) {
      load.sent += 1;
      const id = `wamid.demo.load.${load.sent}`;
      const status = await world.deliver(id, `Message ${load.sent}`).then(
        (response) => response.status,
        () => null,
      );
      if (status === 200) acknowledged.push(id);
      if (acknowledged.length < DELIVERIES / 3 || isDead()) continue;
      load.dead = true;
      await world.kill("SIGKILL");
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, sender));
  say(`killed   after ${acknowledged.length} of ${load.sent} deliveries were acknowledged`);
  must(isDead() && acknowledged.length > 0, "the server was not killed under load");
  await world.start();
  say("restart  on the same data");
  const missing = async (): Promise<string[]> => {
    const stored = await world.storedMessages();
    return acknowledged.filter((id) => stored.filter((one) => one === id).length !== 1);
  };
  const lost = await until(missing, (ids) => ids.length === 0);
  say(
    `counted  ${acknowledged.length - lost.length} of ${acknowledged.length} are there, each once`,
  );
  must(lost.length === 0, `lost or twice: ${lost.join(", ")}`);
}

const LOOKS_MAX = 120;

/** Looks until it is so, or long enough; returns what was seen last. */
async function until<T>(look: () => Promise<T>, isSo: (seen: T) => boolean): Promise<T> {
  for (let looks = 1; ; looks++) {
    const seen = await look();
    if (isSo(seen) || looks === LOOKS_MAX) return seen;
    await sleep(LOOK_MS);
  }
}
