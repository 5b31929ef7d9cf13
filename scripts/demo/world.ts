import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readDeployment } from "../../src/host/deployment";
import { openIssuer } from "../../src/host/devIssuer";
import { whatsappDelivery } from "../../src/sim/deliveries";
import { list, parseJson, record, text } from "../../src/sim/json";
import { DEV_ISSUER } from "../issuer";

/** Something that was to be seen and was not. */
export class NotSeen extends Error {}

export interface ChatEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

const USER = "demo";
const START_MS_MAX = 120_000;
/** A server that takes longer to end in order is killed. */
const CLOSE_MS_MAX = 5_000;
const LOOK_MS = 50;

/** What makes an outage and a stale answer visible within a minute. */
const DEMO_ENV = {
  CIRCUIT_SERPER_THRESHOLD: "3",
  CIRCUIT_SERPER_COOLDOWN_MS: "600000",
  TOOL_CACHE_WEB_SEARCH_TTL_MS: "5000",
  // Else a stale result would be renewed unseen, and the outage not be told of.
  TOOL_CACHE_REVALIDATE_MS: "0",
  TOOL_JOB_MAX_ATTEMPTS: "1",
};

/** Names a process of ours must not pass on: the demo stands on its own. */
const KEPT = ["PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SystemRoot", "NODE_OPTIONS"];

/** A server of the demo's own, in a process that can be killed, and what is done to it. */
export class World {
  readonly #projectDir: string;
  readonly #dataDir: string;
  readonly #environment: NodeJS.ProcessEnv;
  #child: ChildProcess | null = null;
  #isClosed = false;
  siteUrl = "";
  #cloudUrl = "";
  #adminKey = "";
  #simUrl = "";

  constructor(place: {
    readonly projectDir: string;
    readonly dataDir: string;
    readonly environment: NodeJS.ProcessEnv;
  }) {
    this.#projectDir = place.projectDir;
    this.#dataDir = place.dataDir;
    this.#environment = place.environment;
  }

  /** Ends the server for good. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.kill("SIGTERM", CLOSE_MS_MAX);
  }

  /** Throws where nothing may be started or waited for any more. */
  requireOpen(): void {
    if (this.#isClosed) throw new NotSeen("the demo was ended");
  }

  /** Lets time pass. */
  async wait(ms: number): Promise<void> {
    await sleep(ms);
  }

  /** Starts the server on free ports and waits until it answers. */
  async start(): Promise<void> {
    this.requireOpen();
    const flags = ["--port", "0", "--site-port", "0", "--data-dir", this.#dataDir];
    const env = Object.fromEntries(
      KEPT.flatMap((name) => {
        const value = this.#environment[name];
        return value === undefined ? [] : [[name, value]];
      }),
    );
    const child = spawn(process.execPath, ["scripts/bootstrap.mjs", "start", ...flags], {
      cwd: this.#projectDir,
      env: { ...env, ...DEMO_ENV },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr.on("data", (part: Buffer) => (said = `${said}${part.toString()}`.slice(-2_000)));
    this.#child = child;
    const endMs = Date.now() + START_MS_MAX;
    while (!(await this.#isUp(child.pid ?? 0))) {
      this.requireOpen();
      if (child.exitCode !== null || Date.now() > endMs)
        throw new NotSeen(`The server did not start. ${said}`);
      await sleep(LOOK_MS);
    }
  }

  async #isUp(pid: number): Promise<boolean> {
    const deployment = record(await readDeployment(this.#dataDir));
    if (deployment["pid"] !== pid) return false;
    this.siteUrl = text(deployment["siteUrl"]);
    this.#cloudUrl = text(deployment["cloudUrl"]);
    this.#adminKey = text(deployment["adminKey"]);
    this.#simUrl = text(deployment["simUrl"]);
    return await fetch(`${this.siteUrl}/api/health`).then(
      ({ ok }) => ok,
      () => false,
    );
  }

  /** Ends the server and waits until it is gone. Does nothing where none runs. */
  async kill(signal: NodeJS.Signals, withinMs: number = START_MS_MAX): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), withinMs);
    await gone;
    clearTimeout(timer);
  }

  /** One chat turn; each event is handed on as it comes. */
  async chat(content: string, seen: (event: ChatEvent) => void): Promise<ChatEvent[]> {
    const token = await (await openIssuer(this.#dataDir, DEV_ISSUER)).token(USER);
    const response = await fetch(`${this.siteUrl}/api/chat`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ message: { content }, webSearch: true }),
    });
    if (response.status !== 200 || response.body === null)
      throw new NotSeen(`The chat answered ${response.status} ${await response.text()}`);
    const events: ChatEvent[] = [];
    let rest = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + part).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const event of blocks.flatMap(eventOf)) {
        events.push(event);
        seen(event);
      }
    }
    return events;
  }

  /** A WhatsApp message as Meta delivers it, signed. */
  async deliver(id: string, body: string): Promise<Response> {
    const secrets = record(
      parseJson(readFileSync(path.join(this.#dataDir, "secrets.json"), "utf8")),
    );
    const request = whatsappDelivery({
      text: body,
      from: "15551234567",
      id,
      nowMs: Date.now(),
      appSecret: text(secrets["WHATSAPP_APP_SECRET"]),
    });
    return await fetch(`${this.siteUrl}/api/whatsapp/webhook`, { method: "POST", ...request });
  }

  /** Runs a query as an operator. */
  async query(name: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    const response = await fetch(`${this.#cloudUrl}/api/query`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Convex ${this.#adminKey}` },
      body: JSON.stringify({ path: name, args, format: "json" }),
    });
    const answer = record(await response.json());
    if (answer["status"] !== "success")
      throw new NotSeen(`${name} failed: ${text(answer["errorMessage"])}`);
    return answer["value"];
  }

  /** Makes a simulated provider fail, or with `{}` work again. */
  async fault(provider: string, fields: Readonly<Record<string, unknown>>): Promise<void> {
    const response = await fetch(`${this.#simUrl}/control/fault`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ provider, ...fields }),
    });
    if (!response.ok) throw new NotSeen(`The simulator refused: ${await response.text()}`);
  }

  /** Requests a simulated provider has had. */
  async asked(provider: string): Promise<number> {
    const state = record(await (await fetch(`${this.#simUrl}/control/state`)).json());
    return Number(record(record(state["providers"])[provider])["requests"]);
  }

  /** Ids of the stored WhatsApp messages, all pages of them. */
  async storedMessages(): Promise<string[]> {
    const ids: string[] = [];
    let cursor: unknown = null;
    for (;;) {
      const page = record(
        await this.query("integrations/whatsapp:listStoredMessages", { cursor, limit: 100 }),
      );
      ids.push(...list(page["messages"]).map((message) => text(record(message)["messageId"])));
      cursor = page["cursor"] ?? null;
      if (cursor === null) return ids;
    }
  }
}

function eventOf(block: string): ChatEvent[] {
  const data = block.split("\n").find((line) => line.startsWith("data: "));
  if (data === undefined) return [];
  const event = record(parseJson(data.slice("data: ".length)));
  return [{ ...event, type: text(event["type"]) }];
}
