/** What a probe is made of. */
import type * as z from "zod";
import { type ErrorCode, errorSpec } from "../../src/errors/table";
import type { RouteId, RouteRow } from "../../src/http/routes";
import type { Sent } from "./exchange";
import { type Credentials, pass } from "./probeCredentials";
import { sampleOf } from "./sample";

/** What an answer must be. */
export interface Expected {
  /** Any of these. */
  readonly statuses: readonly number[];
  /** Code of the problem; null where the answer is none. */
  readonly code: ErrorCode | null;
  /** Values by name in lower case; null where the header must not be there. */
  readonly headers: Readonly<Record<string, string | RegExp | null>>;
  readonly contract: z.ZodType | null;
  /** The whole body. */
  readonly text: string | null;
}

export interface Planned {
  readonly name: string;
  readonly title: string;
  readonly route: RouteId | null;
  readonly guard: string;
  /** A text says why it cannot be sent, null that nobody knows how. */
  readonly sent: Sent | string | null;
  readonly expected: Expected;
}

interface Part {
  readonly guard: string;
  /** What is special about this one. */
  readonly variant: string;
  readonly title: string;
  readonly sent: Sent | string | null;
  readonly expected: Expected;
}

export type Make = (part: Part) => Planned;

export const maker =
  (id: RouteId | null, row: Pick<RouteRow, "method" | "path"> | null): Make =>
  ({ guard, variant, title, sent, expected }) => ({
    name: snake(`${id ?? "unrouted"} ${guard} ${variant}`),
    title: row === null ? title : `${row.method} ${row.path} ${title}`,
    route: id,
    guard,
    sent,
    expected,
  });

const snake = (text: string): string =>
  text
    .replaceAll(/([a-z])([A-Z])/g, "$1_$2")
    .replaceAll(/\W+/g, "_")
    .toLowerCase();

export interface Setting {
  readonly row: RouteRow;
  readonly probe: Make;
  readonly credentials: Credentials;
}

export const refusedAs = (code: ErrorCode, headers: Expected["headers"] = {}): Expected => ({
  statuses: [errorSpec(code).status],
  code,
  headers,
  contract: null,
  text: null,
});

export const answeredAs = (
  statuses: readonly number[],
  more: Partial<Expected> = {},
): Expected => ({
  statuses,
  code: null,
  headers: {},
  contract: null,
  text: null,
  ...more,
});

export const JSON_TYPE = { "content-type": "application/json" };
export const FOREIGN_ORIGIN = "https://probe.invalid";

export function request(
  row: RouteRow,
  part: {
    readonly headers?: Sent["headers"];
    readonly body?: string;
    readonly query?: string;
  },
): Sent {
  const { headers = {}, body = null, query } = part;
  const path = query === undefined ? row.path : `${row.path}?${query}`;
  return { method: row.method, path, headers, body };
}

/** A body that its route lets through until it is read. */
export function signed(row: RouteRow, body: string, credentials: Credentials): Sent | string {
  const headers = pass(row, body, credentials);
  return typeof headers === "string"
    ? headers
    : request(row, { headers: { ...JSON_TYPE, ...headers }, body });
}

/** A request that its route lets through until its query is read; null where none can be made. */
export function withQuery(
  row: RouteRow,
  query: string,
  credentials: Credentials,
): Sent | string | null {
  if (row.body === null) return request(row, { query });
  const body = sampleOf(row.body);
  const sent = body === null ? null : signed(row, JSON.stringify(body), credentials);
  return sent === null || typeof sent === "string"
    ? sent
    : { ...sent, path: `${row.path}?${query}` };
}

/** A request that fulfils its contracts; null where none can be made. */
export function sound(
  row: RouteRow,
  headers: Sent["headers"],
  { whole = false } = {},
): Sent | null {
  const body = row.body === null ? null : sampleOf(row.body);
  const query = row.query === null ? null : sampleOf(row.query, { whole });
  if ((row.body !== null && body === null) || (row.query !== null && query === null)) return null;
  const parameters = new URLSearchParams(query as Record<string, string> | undefined);
  return request(row, {
    headers: { ...(body === null ? {} : JSON_TYPE), ...headers },
    ...(body === null ? {} : { body: JSON.stringify(body) }),
    ...(query === null ? {} : { query: parameters.toString() }),
  });
}
