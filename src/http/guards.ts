/** What stands before a route's handler, in the order in which it is asked, as data. */
import type { ErrorCode } from "../errors/table";
import type { LimitGuard, RouteRow } from "./routes";

export type Guard = {
  readonly name: string;
  /** Codes it answers when it refuses. */
  readonly refuses: readonly ErrorCode[];
} & (
  | {
      /** Before any call. Nothing that tells friend from foe lets through because it failed. */
      readonly where: "request";
      readonly onFault: "reject";
    }
  | {
      /** Inside the transaction that accepts. */
      readonly where: "transaction";
      /** What happens when the guard itself fails. */
      readonly onFault: LimitGuard["onFault"];
    }
);

/** The guards of a route, derived from its row. */
export function guardsOf(row: RouteRow): readonly Guard[] {
  const guards: Guard[] = [before("method", "method_not_allowed")];
  if (row.cors === "allowlist") guards.push(before("origin", "forbidden", "misconfigured"));
  if (row.body !== null)
    guards.push(
      before("media type", "unsupported_media_type"),
      before("body bytes", "payload_too_large"),
    );
  if (row.auth.kind === "signature")
    guards.push(before(`signature ${row.auth.scheme}`, "forbidden", "misconfigured"));
  if (row.body !== null) guards.push(before("JSON", "invalid_json"));
  if (row.body !== null || row.query !== null) guards.push(before("contract", "invalid_request"));
  if (row.auth.kind === "user") guards.push(before("identity", "unauthorized", "misconfigured"));
  if (row.auth.kind === "token") guards.push(before("token", "forbidden", "misconfigured"));
  for (const { name, onFault } of row.guards)
    guards.push({ name: `limit ${name}`, refuses: LIMIT_CODES, onFault, where: "transaction" });
  return guards;
}

/** The limits of a route that let through what they could not count. */
export const failOpenLimits = (row: RouteRow): readonly string[] =>
  row.guards.filter(({ onFault }) => onFault === "allow").map(({ name }) => name);

const LIMIT_CODES: readonly ErrorCode[] = ["rate_limited", "rate_limit_unavailable", "overloaded"];

const before = (name: string, ...refuses: readonly ErrorCode[]): Guard => ({
  name,
  refuses,
  onFault: "reject",
  where: "request",
});

/** Every code a route can answer: of its guards, its own, and what nobody foresaw. */
export function errorCodesOf(row: RouteRow): readonly ErrorCode[] {
  const ofGuards = guardsOf(row).flatMap(({ refuses }) => refuses);
  return [...new Set<ErrorCode>([...ofGuards, ...row.errors, "internal_error"])];
}
