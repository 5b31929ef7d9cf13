import { list, record, text } from "../../src/sim/json";
import type { Target } from "./target";
import { UsageError } from "../usage";

const ANSWER_MS_MAX = 60_000;

/**
 * Calls a query of the target as an operator, over the platform's HTTP API: on any port and in the
 * cloud alike. Throws `UsageError` where somebody can put it right, `Error` for what the function
 * says.
 */
export async function callQuery(
  { cloudUrl, adminKey }: Target,
  call: { readonly name: string; readonly args: Readonly<Record<string, number>> },
  signal: AbortSignal,
): Promise<unknown> {
  if (adminKey === null)
    throw new UsageError(`An operator's key is needed for ${cloudUrl}: give --admin-key.`);
  const within = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS_MAX)]);
  const response = await reach(`${cloudUrl}/api/query`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Convex ${adminKey}` },
    body: JSON.stringify({ path: call.name, args: call.args, format: "json" }),
    signal: within,
  });
  const said = await response.text();
  const answer = parsed(said);
  if (answer["status"] === "success") return answer["value"];
  if (answer["status"] === "error") throw new Error(messageOf(call.name, answer));
  const code = text(answer["code"]);
  if (response.status === 401 || response.status === 403 || code === "BadDeployKey")
    throw new UsageError(`${cloudUrl} does not accept this operator's key.`);
  throw new UsageError(
    `${cloudUrl} answered ${response.status} and no function's result: is it where functions answer? Give --cloud-url.`,
  );
}

async function reach(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    const cause = error instanceof Error ? record(error.cause)["code"] : undefined;
    const why = text(cause) === "" ? String(error) : text(cause);
    throw new UsageError(`Nothing answers at ${new URL(url).origin} (${why}).`);
  }
}

function parsed(said: string): Readonly<Record<string, unknown>> {
  try {
    return record(JSON.parse(said));
  } catch {
    return {};
  }
}

/** The first lines hold the message; the rest is a stack of the deployment. */
function messageOf(name: string, answer: Readonly<Record<string, unknown>>): string {
  const lines = text(answer["errorMessage"]).split("\n").slice(0, 2);
  const logged = list(answer["logLines"]).length;
  return `${name} failed: ${lines.join(" ").trim()}${logged > 0 ? ` (${logged} log lines)` : ""}`;
}
