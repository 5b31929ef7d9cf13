import { readFile } from "node:fs/promises";
import path from "node:path";
import { page } from "../generate/markdown";
import { SEED_DEFAULT } from "./options";
import { boundTable, contentionTable, figureTable, operationTable, type Results } from "./report";

const PEERS = ["rate-limiter", "workpool", "action-cache"];

/** docs/benchmarks.md: the results with what made them, and how far they can be trusted. */
export async function documentOf(
  results: Results,
  seed: number,
  projectDir: string,
): Promise<string> {
  const versions = await Promise.all(PEERS.map((name) => versionOf(projectDir, name)));
  const { contention, figures, operations } = results;
  const missed = figures.filter(({ pass }) => !pass);
  const held = figures.length - missed.length;
  const flag = seed === SEED_DEFAULT ? "" : ` --seed ${seed}`;
  return page([
    "# Benchmarks",
    "",
    `Written by \`npm run bench -- --write${flag}\`; do not edit. The same run prints these tables, and`,
    "`npm run -s bench -- --json` the first as JSON.",
    "",
    `Beside ${versions.join(", ")} and a bare read-and-patch mutation, all in one run.`,
    "",
    "## Bars",
    "",
    `${held} of ${figures.length} hold${missed.length === 0 ? "" : `; missed: ${missed.map(({ id }) => id).join(", ")}`}.`,
    "",
    ...figureTable(figures),
    "",
    "## What a zero says",
    "",
    "None of so many is no proof of none. With a share above this, fewer than one run in twenty would",
    "see as few (Clopper and Pearson's one-sided bound); more `--seeds` make it smaller. It takes calls",
    "for independent of each other, which those of one crowd are not quite.",
    "",
    ...boundTable(figures),
    "",
    "## Cost of one operation",
    "",
    "Calls are what the platform bills as function calls, with everything the operation sets off.",
    "",
    ...operationTable(operations),
    "",
    "## Contention",
    "",
    "Independent arrivals for 10 s. Each cell: attempts per operation, operations given up after the",
    "platform's retries, and milliseconds from the call to its commit, P50 and P99.",
    "",
    ...contentionTable(contention),
    "",
    ...METHOD,
  ]);
}

const METHOD = `## How it is measured

One engine in memory (\`scripts/bench/engine\`) runs the registered functions of \`convex/\` and those
that the components' packages ship, through the same system calls that \`convex/server\` makes. Ours
and theirs are counted by the same code:

- **Calls**: every query, mutation and action that a client, the scheduler or an action starts, and
  every attempt of one that conflicted. A function or component called inside a query or mutation
  runs in the same transaction and is no call.
- **Documents and bytes read**: each document a scan consumes, filtered out or not, with its key in
  the declared index it was found through. A patch, replacement or deletion reads its document once
  more. Reads of a stale snapshot count, but nothing depends on them.
- **Documents and bytes written**: each changed document once per transaction with a key in every
  declared index of its table, changed or not. System tables, such as scheduled functions, are not
  billed and not counted.

The contention is simulated: an attempt runs the real function on what is committed at that moment
of simulated time, takes 15 ms ± 30 %, and commits if nobody wrote into what it had read meanwhile;
an index range is read as far as it was walked. A conflict is retried as the platform does: after
U(0, 1) × min(100 ms × 2^k, 2 s) and 4 times at most for clients and actions, up to 60 s apart and
without end for scheduled functions. The scheduler starts a function 10 ms after the commit that
asked for it, or its time, and 256 at once. A mutation that wrote nothing is not validated. Bars
are means over 10 seeds, the contention table over 3; \`--seed\` draws others.

Nothing of it runs on the embedded host, ours no more than theirs: the host loads no components, and
real time would make every run another one. Its own tests (\`scripts/bench/*.test.ts\`) hold the engine
against the host instead, conflict by conflict with one transaction held open while another commits,
and hold the counts against \`ctx.meta.getTransactionMetrics()\` and published figures of the
components, the conflict rate of one hot document against 1 − e^(−λd), and look for lost updates.

Limits of the method:

- There is no network, no start of an isolate and no cost of a transaction's length: one that does
  much takes as long as one that does little, which flatters whatever does much at once.
- 15 ms is an assumption. Conflicts grow with it, for ours as for the others; the order does not
  change.
- Work is a pause: the queue's workers claim and complete with the registered functions, but run no
  tool. Tool calls (T14) run the code that turns use, with an upstream that answers after 200 ms.
- T1, T2 and T6 find a pool all of whose slots have been used before, at the dearest of 10 places.
- The pool of 100 slots hands a worker up to 20 jobs at once (\`TOOL_JOB_MAX_PER_RUN\`; the component:
  32), smaller ones the default of 3.
- T3 enqueues 100 jobs per mutation, the pool all of them in one.
- T10 counts calls, as their callers see them: the call path asks once more for an admission that the
  platform gave up after five lost races (\`admit\` in \`src/providers/call.ts\`), so a call is lost
  where both are. How often the platform gave up stands beside it, under "What a zero says".
- T10b sends the calls of T10 to the 20 slots that longer calls leave, which keeps the pool above
  98 % busy on average (\`T10b.idle\`); \`T10b.crowded\` asks for a fifth more than there is, so that
  all slots change hands, and \`T10b.full\` for the last 3 slots. Refusals are answers, not failures,
  and do not count as such.
- T15 and T16 make their rows by copying those that real calls left: a day of traffic under the crons
  with a provider down, dead letters, jobs in line and full slots at its end.
- T18 is a target, reported as it is.`.split("\n");

async function versionOf(projectDir: string, name: string): Promise<string> {
  const file = path.join(projectDir, "node_modules", "@convex-dev", name, "package.json");
  const { version } = JSON.parse(await readFile(file, "utf8")) as { readonly version: string };
  return `@convex-dev/${name} ${version}`;
}
