import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { failOpenLimits, guardsOf } from "./guards";
import { type LimitGuard, ROUTE_IDS, type RouteRow, routeRow } from "./routes";

/** A route whose limits declare `allow` where they are among these. */
function declaring(row: RouteRow, allowed: readonly string[]): RouteRow {
  const guards = row.guards.map((guard): LimitGuard => ({
    ...guard,
    onFault: allowed.includes(guard.name) ? "allow" : "reject",
  }));
  return { ...row, guards };
}

describe("what a guard does when it fails", () => {
  test.each(ROUTE_IDS)("is declared by the limits of %s, and by nothing else of it", (id) => {
    const names = routeRow(id).guards.map(({ name }) => name);
    fc.assert(
      fc.property(fc.subarray(names), (allowed) => {
        const row = declaring(routeRow(id), allowed);
        expect(failOpenLimits(row)).toEqual(allowed);
        const open = guardsOf(row).filter(({ onFault }) => onFault === "allow");
        expect(open.map(({ name, where }) => [name, where])).toEqual(
          allowed.map((name) => [`limit ${name}`, "transaction"]),
        );
      }),
    );
  });

  test("is to refuse, as the routes stand", () => {
    expect(ROUTE_IDS.flatMap((id) => failOpenLimits(routeRow(id)))).toEqual([]);
  });
});
