import { errorCodesOf, guardsOf } from "../../src/http/guards";
import { allowedMethods, paths, ROUTE_IDS, routeRow } from "../../src/http/routes";
import { code, GENERATED, page, table } from "./markdown";

/** `scripts/reliability/phase-2-surface-matrix.md`: what guards each public surface. */
export function surfaceMatrix(): string {
  const rows = ROUTE_IDS.map((id) => [id, routeRow(id)] as const);
  return page([
    "# Public surface",
    "",
    GENERATED,
    "",
    "Guards stand in the order in which they are asked. Those of a request cost no function call;",
    "limits are taken in the one transaction that accepts, all or none.",
    "",
    ...table(
      ["Surface", "Auth", "Body", "Bytes at most", "Guards", "Limits (per, on fault)"],
      rows.map(([, row]) => [
        code(`${row.method} ${row.path}`),
        row.auth.kind === "signature" ? row.auth.scheme : row.auth.kind,
        row.body === null ? "–" : "JSON",
        row.body === null ? "–" : String(row.bodyBytesMax),
        guardsOf(row)
          .filter(({ where }) => where === "request")
          .map(({ name }) => name)
          .join(", "),
        row.guards
          .map(({ name, per, onFault }) => `${code(name)} (${per}, ${onFault})`)
          .join(", ") || "–",
      ]),
    ),
    "",
    "## Refusals",
    "",
    ...table(
      ["Surface", "Codes"],
      rows.map(([, row]) => [
        code(`${row.method} ${row.path}`),
        errorCodesOf(row).map(code).join(", "),
      ]),
    ),
    "",
    "## Methods",
    "",
    "Every path answers every method; any other path is `not_found`, as a problem response.",
    "",
    ...table(
      ["Path", "Allow"],
      paths().map((path) => [code(path), allowedMethods(path).map(code).join(", ")]),
    ),
  ]);
}
