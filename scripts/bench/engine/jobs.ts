import { fieldAt } from "../../../src/host/json";
import type { Table } from "./tables";
import type { Transaction } from "./transaction";

/** A scheduled function: its row, and what set it off. */
export interface Job {
  readonly table: Table;
  readonly id: string;
  readonly hops: number;
  readonly isCron: boolean;
}

export function setState(
  transaction: Transaction,
  { table, id }: Pick<Job, "table" | "id">,
  kind: string,
): void {
  const job = transaction.view(table, id, false);
  if (job === null) throw new Error("A scheduled function has its row.");
  transaction.patch(table, id, { state: { kind } });
}

export function stateOf({ table, id }: Job): string {
  const job = table.documents.get(id);
  const kind = job === undefined ? undefined : fieldAt(job.value, ["state", "kind"]);
  return typeof kind === "string" ? kind : "";
}
