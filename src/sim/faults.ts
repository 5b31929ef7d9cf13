import { number, record } from "./json";

/**
 * A fault of one provider. Latency delays every answer it applies to; `errorRate` is the share of
 * requests that the rest applies to, spread evenly so that a rate of 0.25 is every fourth request.
 */
export interface Fault {
  readonly latencyMs?: number;
  readonly status?: number;
  readonly errorRate?: number;
  /** Body bytes after which the connection is destroyed. */
  readonly cutAfterBytes?: number;
  /** Body bytes after which nothing more comes and the connection stays open. */
  readonly hangAfterBytes?: number;
  readonly malformedFrame?: boolean;
  /** The request is read and never answered. */
  readonly hang?: boolean;
  /** The connection is destroyed before any answer. */
  readonly disconnect?: boolean;
  readonly retryAfterSeconds?: number;
  /** Requests that the fault still applies to; without it, until reset. */
  readonly times?: number;
  /** Replaces the body; text as it is, anything else as JSON. */
  readonly body?: unknown;
  /** Only requests whose path contains this. */
  readonly path?: string;
}

type Kind = "integer" | "share" | "flag" | "status" | "text" | "any";

/** Every field of a fault, with its name on the command line. */
export const FAULT_FIELDS = {
  latencyMs: { kind: "integer", option: "latency" },
  status: { kind: "status", option: "status" },
  errorRate: { kind: "share", option: "error-rate" },
  cutAfterBytes: { kind: "integer", option: "cut" },
  hangAfterBytes: { kind: "integer", option: "hang-after" },
  malformedFrame: { kind: "flag", option: "malformed" },
  hang: { kind: "flag", option: "hang" },
  disconnect: { kind: "flag", option: "disconnect" },
  retryAfterSeconds: { kind: "integer", option: "retry-after" },
  times: { kind: "integer", option: "times" },
  body: { kind: "any", option: "body" },
  path: { kind: "text", option: "path" },
} as const satisfies Record<keyof Fault, { kind: Kind; option: string }>;

/** A fault from JSON, or the reason why it is none. */
export function parseFault(value: unknown): Fault | string {
  const given = record(value);
  for (const [name, field] of Object.entries(given)) {
    const spec = Object.hasOwn(FAULT_FIELDS, name)
      ? FAULT_FIELDS[name as keyof typeof FAULT_FIELDS]
      : undefined;
    if (spec === undefined)
      return `${name} is not a fault; known: ${Object.keys(FAULT_FIELDS).join(", ")}`;
    const problem = problemOf(spec.kind, field);
    if (problem !== null) return `${name} ${problem}`;
  }
  return given;
}

function problemOf(kind: Kind, value: unknown): string | null {
  switch (kind) {
    case "integer":
      return Number.isInteger(value) && (number(value) ?? -1) >= 0
        ? null
        : "must be a whole number, 0 or more";
    case "status":
      return Number.isInteger(value) && (number(value) ?? 0) >= 200 && (number(value) ?? 0) <= 599
        ? null
        : "must be a status from 200 to 599";
    case "share": {
      const share = number(value) ?? -1;
      return share >= 0 && share <= 1 ? null : "must be from 0 to 1";
    }
    case "flag":
      return typeof value === "boolean" ? null : "must be true or false";
    case "text":
      return typeof value === "string" ? null : "must be text";
    case "any":
      return null;
  }
}

interface Armed {
  fault: Fault;
  seen: number;
  left: number;
}

/** The faults of all providers; at most one each, a new one replacing the old. */
export class Faults {
  private readonly armed = new Map<string, Armed>();

  set(provider: string, fault: Fault): void {
    if (Object.keys(fault).length === 0) this.armed.delete(provider);
    else this.armed.set(provider, { fault, seen: 0, left: fault.times ?? Infinity });
  }

  get(provider: string): Fault | null {
    return this.armed.get(provider)?.fault ?? null;
  }

  clear(): void {
    this.armed.clear();
  }

  /** What happens to this request; it counts towards `times` and `errorRate`. */
  take(provider: string, path: string): Fault | null {
    const armed = this.armed.get(provider);
    if (armed === undefined) return null;
    const { fault } = armed;
    if (fault.path !== undefined && !path.includes(fault.path)) return null;
    armed.left -= 1;
    if (armed.left <= 0) this.armed.delete(provider);
    const before = armed.seen;
    armed.seen += 1;
    if (fault.errorRate === undefined) return fault;
    if (Math.floor(armed.seen * fault.errorRate) === Math.floor(before * fault.errorRate))
      return fault.latencyMs === undefined ? null : { latencyMs: fault.latencyMs };
    return hasEffect(fault) ? fault : { ...fault, status: 503 };
  }
}

/** A rate alone means failing; with another effect it says how often that one happens. */
function hasEffect(fault: Fault): boolean {
  return (
    fault.status !== undefined ||
    fault.cutAfterBytes !== undefined ||
    fault.hangAfterBytes !== undefined ||
    fault.malformedFrame === true ||
    fault.hang === true ||
    fault.disconnect === true ||
    fault.body !== undefined
  );
}
