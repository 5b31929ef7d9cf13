/** What is answered to everybody, and what an allowed request gets where asking changes nothing. */
import {
  allowedMethods,
  answersHead,
  paths,
  type RouteId,
  type RouteRow,
  routesAt,
} from "../../src/http/routes";
import type { Sent } from "./exchange";
import type { Credentials } from "./probeCredentials";
import {
  answeredAs,
  FOREIGN_ORIGIN,
  type Make,
  maker,
  type Planned,
  refusedAs,
  request,
  type Setting,
  sound,
} from "./probeParts";

/** What a browser asks before it sends anything of another page. */
export function preflights(
  row: RouteRow,
  probe: Make,
  { origin }: Credentials,
): readonly Planned[] {
  const ask = (from: string): Sent => ({
    method: "OPTIONS",
    path: row.path,
    headers: { origin: from, "access-control-request-method": row.method },
    body: null,
  });
  const guard = "preflight";
  const closed = { "access-control-allow-origin": null };
  if (row.cors === "none") {
    const allow = allowedMethods(row.path).join(", ");
    const expected = answeredAs([204], { headers: { ...closed, allow } });
    const title = "asked for by a preflight";
    return [probe({ guard, variant: "none", title, sent: ask(FOREIGN_ORIGIN), expected })];
  }
  const allowed = answeredAs([204], {
    headers: {
      "access-control-allow-origin": origin ?? "",
      "access-control-allow-methods": new RegExp(`\\b${row.method}\\b`),
      "access-control-allow-headers": /Authorization/,
      vary: /Origin/,
    },
  });
  return [
    probe({
      guard,
      variant: "allowed",
      title: "asked for by the preflight of an allowed page",
      sent: origin === null ? "no allowed origin is known: give --origin" : ask(origin),
      expected: allowed,
    }),
    probe({
      guard,
      variant: "foreign",
      title: "asked for by the preflight of another page",
      sent: ask(FOREIGN_ORIGIN),
      expected: answeredAs([204], { headers: { ...closed, vary: /Origin/ } }),
    }),
  ];
}

/** What a route answers when nothing is wrong, where asking changes nothing. */
export function answersOf(id: RouteId, { row, probe, credentials }: Setting): readonly Planned[] {
  if (row.method !== "GET") return [];
  const [success] = row.success;
  if (success === undefined) return [];
  const isOpen = row.auth.kind === "none";
  const hasHead = isOpen && answersHead(row);
  const headers =
    success.contentType === null ? {} : { "content-type": new RegExp(success.contentType) };
  const good = answeredAs([success.status], { headers, contract: success.contract });
  const guard = "none";
  if (row.auth.kind === "token") {
    const challenge = credentials.handshake(id);
    if (challenge === null) return [];
    const { query, text } = challenge;
    const sent = query === null ? "its token is not known" : request(row, { query });
    const title = "with its token";
    return [probe({ guard, variant: "answers", title, sent, expected: { ...good, text } })];
  }
  if (row.auth.kind === "user") {
    const title = "with a token, for what is not there";
    const { token } = credentials;
    const sent =
      token === null
        ? "no user's token is known: give --auth-token"
        : sound(row, { authorization: `Bearer ${token}` });
    return [
      probe({ guard, variant: "nothing there", title, sent, expected: refusedAs("not_found") }),
    ];
  }
  if (!isOpen) return [];
  const sent = sound(row, {});
  return [
    probe({ guard, variant: "answers", title: "plainly", sent, expected: good }),
    ...(hasHead
      ? [
          probe({
            guard,
            variant: "head",
            title: "as HEAD",
            sent: sent === null ? null : { ...sent, method: "HEAD" },
            expected: answeredAs([success.status], { headers, text: "" }),
          }),
        ]
      : []),
  ];
}

/** Paths that are nobody's: one out of the blue, and each of ours with a slash too many. */
export function unrouted(): readonly Planned[] {
  const probe = maker(null, null);
  const all = ["/probe/nowhere", ...paths().map((path) => `${path}/`)];
  return all
    .filter((path) => routesAt(path).length === 0)
    .flatMap((path) =>
      ["GET", "POST"].map((method) =>
        probe({
          guard: "path",
          variant: `${method} ${path.replace(/\/$/, " slash")}`,
          title: `${method} ${path}`,
          sent: { method, path, headers: {}, body: null },
          expected: refusedAs("not_found"),
        }),
      ),
    );
}
