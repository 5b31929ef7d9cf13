import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { gmailPush, whatsappMessage, whatsappStatuses, type SignedRequest } from "./deliveries";
import { findDeployment, UserError, type Deployment } from "./deployment";
import { FAULT_FIELDS } from "./faults";
import { list, number, parseJson, record, text } from "./json";
import { MESSAGE_OPTIONS, messageOf } from "./messages";

/** Where the command reads from and writes to. */
interface SimIo {
  /** One line of output, without its end. */
  readonly print: (line: string) => void;
  readonly printError: (line: string) => void;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly now: () => number;
}

const USAGE = `Usage: npm run sim -- <command> [--data-dir <dir>]
  fault <provider> <key>=<value> ...   keys: ${Object.values(FAULT_FIELDS)
    .map(({ option }) => option)
    .join(", ")}
  fault <provider> off
  reset                                no faults, counts at zero
  state [--json]                       faults and requests per provider
  whatsapp <text> [--from 15551234567] [--id wamid.x], or one of
    ${Object.entries(MESSAGE_OPTIONS)
      .map(([option, takes]) => `--${option} ${takes}`)
      .join("\n    ")}
    --statuses <count>                 so many status reports in one delivery
  gmail <address> <historyId>`;

const DATA_DIR_DEFAULT = ".ballast";
const SENDER_DEFAULT = "15551234567";
const ANSWER_WITHIN_MS = 30_000;
/** More than fit into 3 MiB, so that the refusal can be seen as well. */
const STATUSES_MAX = 20_000;

/** Runs one command; the result is the exit code. */
export async function runSim(argv: readonly string[], io: SimIo): Promise<number> {
  try {
    const { values, positionals } = parsed(argv);
    const [command = "", ...rest] = positionals;
    if (values.help === true) {
      io.print(USAGE);
      return 0;
    }
    const run = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
    if (run === undefined)
      throw new UserError(command === "" ? USAGE : `no command ${command}\n${USAGE}`);
    const dataDir = resolve(io.cwd, values["data-dir"] ?? DATA_DIR_DEFAULT);
    const deployment = findDeployment({ dataDir, cwd: io.cwd, env: io.env });
    return await run({ rest, values, deployment, io });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.printError(error.message);
    return 1;
  }
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        "data-dir": { type: "string" },
        from: { type: "string" },
        id: { type: "string" },
        edit: { type: "string" },
        revoke: { type: "string" },
        react: { type: "string" },
        location: { type: "string" },
        order: { type: "string" },
        flow: { type: "string" },
        statuses: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new UserError(error instanceof Error ? error.message : String(error));
  }
}

interface Invocation {
  readonly rest: readonly string[];
  readonly values: ReturnType<typeof parsed>["values"];
  readonly deployment: Deployment;
  readonly io: SimIo;
}

const COMMANDS: Readonly<Record<string, (invocation: Invocation) => Promise<number>>> = {
  fault,
  reset,
  state,
  whatsapp,
  gmail,
};

async function fault({ rest, deployment, io }: Invocation): Promise<number> {
  const [provider = "", ...settings] = rest;
  if (settings.length === 0) throw new UserError(USAGE);
  const off = settings.length === 1 && settings[0] === "off";
  const fields = off ? {} : Object.fromEntries(settings.map(faultField));
  const set = await controlCall(deployment, "POST /control/fault", { provider, ...fields });
  const now = set["fault"];
  io.print(now === null ? `${provider}: no fault` : `${provider}: ${JSON.stringify(now)}`);
  return 0;
}

function faultField(setting: string): readonly [string, unknown] {
  const equals = setting.indexOf("=");
  const option = equals < 0 ? setting : setting.slice(0, equals);
  const value = equals < 0 ? "true" : setting.slice(equals + 1);
  const found = Object.entries(FAULT_FIELDS).find(([, spec]) => spec.option === option);
  if (found === undefined) throw new UserError(`no fault ${option}\n${USAGE}`);
  const [name, { kind }] = found;
  // Text is taken as it is written; everything else is JSON, and the simulator checks it.
  return [name, kind === "text" ? value : (parseJson(value) ?? value)];
}

async function reset({ deployment, io }: Invocation): Promise<number> {
  await controlCall(deployment, "POST /control/reset", {});
  io.print("no faults, counts at zero");
  return 0;
}

async function state({ values, deployment, io }: Invocation): Promise<number> {
  const seen = await controlCall(deployment, "GET /control/state");
  if (values.json === true) {
    io.print(JSON.stringify(seen));
    return 0;
  }
  for (const [provider, one] of Object.entries(record(seen["providers"]))) {
    const { requests, fault: set } = record(one);
    const shown = set === null ? "no fault" : JSON.stringify(set);
    io.print(`${provider.padEnd(12)}${String(requests).padStart(7)} requests  ${shown}`);
  }
  for (const entry of list(seen["recent"]).slice(-RECENT_SHOWN).map(record)) {
    const status = number(entry["status"]) ?? "open";
    const gone = entry["aborted"] === true ? " (client left)" : "";
    io.print(`  ${text(entry["method"])} ${text(entry["path"])} -> ${status}${gone}`);
  }
  return 0;
}

const RECENT_SHOWN = 20;

async function whatsapp({ rest, values, deployment, io }: Invocation): Promise<number> {
  const make = requestOf(rest.join(" "), values);
  const appSecret = deployment.setting("WHATSAPP_APP_SECRET");
  if (appSecret === null)
    throw new UserError(
      "WHATSAPP_APP_SECRET is set neither in the environment, .env.local nor the data directory",
    );
  const request = make({ nowMs: io.now(), appSecret });
  return deliver(deployment, { path: "/api/whatsapp/webhook", request, io });
}

type Make = (sending: { readonly nowMs: number; readonly appSecret: string }) => SignedRequest;

/** What the command line asks to be sent. Throws `UserError` for what cannot be. */
function requestOf(said: string, values: Invocation["values"]): Make {
  const { edit, flow, id, location, order, react, revoke, statuses } = values;
  if (statuses !== undefined) {
    const count = /^\d{1,6}$/.test(statuses) ? Number(statuses) : 0;
    if (count < 1 || count > STATUSES_MAX)
      throw new UserError(`--statuses takes a number from 1 to ${STATUSES_MAX}`);
    return (sending) => whatsappStatuses({ ...sending, count });
  }
  const content = messageOf(said, { edit, flow, location, order, react, revoke });
  const from = (values.from ?? SENDER_DEFAULT).replace(/^\+/, "");
  if (!/^\d{5,20}$/.test(from)) throw new UserError("--from must be the digits of a phone number");
  return (sending) => whatsappMessage({ ...sending, content, from, id });
}

async function gmail({ rest, deployment, io }: Invocation): Promise<number> {
  const [email = "", historyId = ""] = rest;
  if (!email.includes("@") || !/^\d{1,15}$/.test(historyId))
    throw new UserError("say whose mail: npm run sim -- gmail someone@example.com 12345");
  await controlCall(deployment, "POST /control/google/mailbox", {
    email,
    historyId: Number(historyId),
  });
  const audience = deployment.setting("GMAIL_PUSH_AUDIENCE") ?? undefined;
  const account = deployment.setting("GMAIL_PUSH_SERVICE_ACCOUNT") ?? undefined;
  const minted = await controlCall(deployment, "POST /control/google/push-token", {
    audience,
    email: account,
  });
  const token = text(minted["token"]);
  const request = gmailPush({ email, historyId, token, nowMs: io.now() });
  return deliver(deployment, { path: "/api/gmail/push", request, io });
}

interface Sending {
  readonly path: string;
  readonly request: SignedRequest;
  readonly io: SimIo;
}

async function deliver(deployment: Deployment, { path, request, io }: Sending): Promise<number> {
  const url = deployment.siteUrl + path;
  const response = await reach(url, { method: "POST", ...request }, "the deployment");
  const body = await response.text();
  io.print(`POST ${url} -> ${response.status} ${response.statusText}`.trimEnd());
  for (const [name, value] of response.headers) io.print(`  ${name}: ${value}`);
  if (body !== "") io.print(body);
  return response.ok ? 0 : 1;
}

async function controlCall(
  { simUrl }: Deployment,
  route: string,
  body?: object,
): Promise<Readonly<Record<string, unknown>>> {
  if (simUrl === null)
    throw new UserError("no simulator is running: this deployment uses the real providers only");
  const [method = "GET", path = ""] = route.split(" ");
  const init =
    body === undefined
      ? { method }
      : { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await reach(simUrl + path, init, "the simulator");
  const answer = record(parseJson(await response.text()));
  if (!response.ok)
    throw new UserError(text(answer["error"]) || `the simulator said ${response.status}`);
  return answer;
}

async function reach(url: string, init: RequestInit, who: string): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
  } catch {
    throw new UserError(
      `${who} does not answer at ${new URL(url).origin}: is "npm start" still running?`,
    );
  }
}
