import { list, record, text } from "../../src/sim/json";
import { type ChatEvent, NotSeen, type World } from "./world";

/** Says one line of the story. */
export type Say = (line: string) => void;

/** What the steps see of the world, and do to it. */
export type Stage = Pick<
  World,
  "asked" | "chat" | "deliver" | "fault" | "kill" | "query" | "start" | "storedMessages" | "wait"
>;

export interface Step {
  readonly title: string;
  /** Does it and shows it; throws `NotSeen` where it did not happen. */
  readonly run: (stage: Stage, say: Say) => Promise<void>;
}

const QUERY = "espresso machines";
const SEARCH_PROVIDER = "serper_search";
/** Reasons of the verdict that are told. */
const REASONS_MAX = 3;
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
/** Lost deliveries that are named. */
const NAMED_MAX = 3;

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

async function streamWithTool(stage: Stage, say: Say): Promise<void> {
  let line = "";
  const events = await stage.chat(`[[slow:250]] ${SEARCH(QUERY)}`, (event) => {
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
  const parts = events.filter(({ type }) => type === "content").length;
  must(parts > 1, "the answer did not stream");
  must(outputOf(events)?.["degraded"] === false, "no result of the tool was seen");
  must(ending(events) === "done", `the turn ended as ${ending(events)}`);
}

async function duplicateWebhook(stage: Stage, say: Say): Promise<void> {
  const id = "wamid.demo.twice";
  for (const time of ["first", "second"]) {
    const response = await stage.deliver(id, "Is my parcel here?");
    const replay = response.headers.get("x-idempotent-replay");
    say(
      `${time.padEnd(8)} ${response.status}${replay === null ? "" : `, X-Idempotent-Replay: ${replay}`}`,
    );
    must(response.status === 200, `the ${time} delivery answered ${response.status}`);
    must((replay === "1") === (time === "second"), `the ${time} delivery was not told apart`);
  }
  const stored = await until(
    stage,
    async () => (await stage.storedMessages()).filter((one) => one === id).length,
    (count) => count > 0,
  );
  say(`stored   ${stored} message`);
  must(stored === 1, `${stored} messages were stored`);
}

async function outage(stage: Stage, say: Say): Promise<void> {
  await stage.fault("serper", { status: 503 });
  say("fault    every search answers 503 from now on");
  for (let turn = 1; turn <= OUTAGE_TURNS_MAX; turn++) {
    const before = await stage.asked("serper");
    const events = await stage.chat(SEARCH(`outage ${turn}`), () => undefined);
    const asked = (await stage.asked("serper")) - before;
    const state = await circuitOf(stage, SEARCH_PROVIDER);
    say(
      `turn ${turn}   ${asked} requests went out, circuit ${state}, the turn ended as ${ending(events)}`,
    );
    must(ending(events) === "done", "a turn did not survive the outage");
    if (state !== "open") continue;
    const quiet = await stage.asked("serper");
    await stage.chat(SEARCH("anything else"), () => undefined);
    const more = (await stage.asked("serper")) - quiet;
    say(`open     the next turn sent ${more} requests: the provider is left alone`);
    must(more === 0, "an open circuit let a request through");
    return;
  }
  throw new NotSeen("the circuit did not open");
}

async function circuitOf(stage: Stage, provider: string): Promise<string> {
  const statuses = list(await stage.query("circuitBreaker:listStatuses", {})).map(record);
  return text(statuses.find((status) => status["provider"] === provider)?.["state"]);
}

async function staleAnswer(stage: Stage, say: Say): Promise<void> {
  say("waiting  until the first answer's result has expired");
  await stage.wait(UNTIL_STALE_MS);
  const events = await stage.chat(SEARCH(QUERY), () => undefined);
  const output = outputOf(events);
  say(`served   degraded: ${String(output?.["degraded"])}, the turn ended as ${ending(events)}`);
  must(output?.["degraded"] === true, "the old result was not served as degraded");
  must(ending(events) === "done", `the turn ended as ${ending(events)}`);
}

async function verdict(stage: Stage, say: Say): Promise<void> {
  const snapshot = record(await stage.query("ops:getReliabilitySnapshot", { minutes: 15 }));
  const action = record(snapshot["nextAction"]);
  say(`verdict  ${text(snapshot["verdict"])}`);
  const reasons = list(snapshot["reasons"]).map(text);
  for (const reason of reasons.slice(0, REASONS_MAX)) say(`because  ${reason}`);
  say(`next     ${text(action["what"])}`);
  if (text(action["command"]) !== "") say(`         ${text(action["command"])}`);
  const isSeen = reasons.some((reason) => reason.includes(SEARCH_PROVIDER));
  must(text(snapshot["verdict"]) !== "ok" && isSeen, "the open circuit was not seen");
  must(text(action["what"]) !== "", "no next action was named");
}

async function killAndRestart(stage: Stage, say: Say): Promise<void> {
  const acknowledged: string[] = [];
  const load = { sent: 0, dead: false };
  const isDead = (): boolean => load.dead;
  const sender = async (): Promise<void> => {
    while (load.sent < DELIVERIES && !isDead()) {
      load.sent += 1;
      const id = `wamid.demo.load.${load.sent}`;
      const status = await stage.deliver(id, `Message ${load.sent}`).then(
        (response) => response.status,
        () => null,
      );
      if (status === 200) acknowledged.push(id);
      if (acknowledged.length < DELIVERIES / 3 || isDead()) continue;
      load.dead = true;
      await stage.kill("SIGKILL");
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, sender));
  say(`killed   after ${acknowledged.length} of ${load.sent} deliveries were acknowledged`);
  must(isDead() && acknowledged.length > 0, "the server was not killed under load");
  await stage.start();
  say("restart  on the same data");
  const missing = async (): Promise<string[]> => {
    const stored = await stage.storedMessages();
    return acknowledged.filter((id) => stored.filter((one) => one === id).length !== 1);
  };
  const lost = await until(stage, missing, (ids) => ids.length === 0);
  say(
    `counted  ${acknowledged.length - lost.length} of ${acknowledged.length} are there, each once`,
  );
  const named = lost.slice(0, NAMED_MAX).join(", ");
  must(lost.length === 0, `${lost.length} are lost or there twice, such as ${named}`);
}

const LOOKS_MAX = 120;

/** Looks until it is so, or long enough; returns what was seen last. */
async function until<T>(
  stage: Stage,
  look: () => Promise<T>,
  isSo: (seen: T) => boolean,
): Promise<T> {
  for (let looks = 1; ; looks++) {
    const seen = await look();
    if (isSo(seen) || looks === LOOKS_MAX) return seen;
    await stage.wait(LOOK_MS);
  }
}
