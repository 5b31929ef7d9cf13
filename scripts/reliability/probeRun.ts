import { randomBytes } from "node:crypto";
import type { ProbeResult } from "./artifacts";
import { type Answer, exchange, type Sent } from "./exchange";
import { examine } from "./probeExamine";
import type { Expected, Planned } from "./probeParts";

/** A request that was made, with what came of it. */
export interface Probed {
  readonly result: ProbeResult;
  /** Path as in the route table's; null where nothing was sent. */
  readonly path: string | null;
  readonly answer: Answer | null;
  readonly answeredAtMs: number | null;
}

export interface Prober {
  readonly baseUrl: string;
  /** Value of `x-synthetic-run`. */
  readonly syntheticRun: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Marks what is sent as nobody's traffic. */
export const newSyntheticRun = (): string => `probe-${randomBytes(6).toString("hex")}`;

/** Sends one probe and examines the answer. Never throws. */
export async function probe(planned: Planned, prober: Prober): Promise<Probed> {
  const { sent } = planned;
  if (sent === null || typeof sent === "string") return unsent(planned, sent);
  const requestId = `${prober.syntheticRun}-${randomBytes(4).toString("hex")}`;
  const [path = ""] = sent.path.split("?");
  try {
    const answer = await send(sent, prober, requestId);
    const details = examine(answer, planned.expected, { requestId, method: sent.method });
    const result: ProbeResult = {
      ...described(planned),
      pass: details.length === 0,
      skipped: null,
      latencyMs: answer.latencyMs,
      status: answer.status,
      actual: [answer.status, answer.headers["x-error-code"]].filter(Boolean).join(" "),
      details: [...details],
    };
    return { result, path, answer, answeredAtMs: Date.now() };
  } catch (error) {
    const why = causeOf(error, prober);
    const result: ProbeResult = {
      ...described(planned),
      pass: false,
      skipped: null,
      latencyMs: null,
      status: null,
      actual: `no answer (${why})`,
      details: [`no answer: ${why}`],
    };
    return { result, path, answer: null, answeredAtMs: null };
  }
}

/** One request of a run, marked as such. */
export async function send(sent: Sent, prober: Prober, requestId: string): Promise<Answer> {
  const marks = { "x-synthetic-run": prober.syntheticRun, "x-request-id": requestId };
  const within = AbortSignal.any([prober.signal, AbortSignal.timeout(prober.timeoutMs)]);
  return await exchange(
    prober.baseUrl,
    { ...sent, headers: { ...sent.headers, ...marks } },
    within,
  );
}

function unsent(planned: Planned, sent: string | null): Probed {
  const unknown =
    "nobody knows how to provoke it: teach scripts/reliability/probeGuards.ts or limitProbes.ts";
  const result: ProbeResult = {
    ...described(planned),
    // What cannot be sent says nothing; what nobody knows how to send is a hole in the probes.
    pass: sent !== null,
    skipped: sent,
    latencyMs: null,
    status: null,
    actual: "not sent",
    details: sent === null ? [unknown] : [],
  };
  return { result, path: null, answer: null, answeredAtMs: null };
}

function described({ name, title, route, guard, expected }: Planned) {
  return { name, title, route, guard, expected: wordsOf(expected) };
}

const wordsOf = ({ statuses, code }: Expected): string =>
  `${statuses.join(" or ")}${code === null ? "" : ` ${code}`}`;

function causeOf(error: unknown, { timeoutMs, signal }: Prober): string {
  if (signal.aborted) return "interrupted";
  if (!(error instanceof Error)) return String(error);
  if (error.name === "AbortError" || error.name === "TimeoutError")
    return `nothing within ${timeoutMs} ms`;
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}

/** Runs tasks a few at a time, in order of start. */
export async function inParallel<T, R>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let at = next++; at < items.length; at = next++) {
      const item = items[at];
      if (item !== undefined) results[at] = await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}
