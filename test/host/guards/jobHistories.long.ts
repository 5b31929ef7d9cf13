import { expect, test } from "vitest";
import { loadOurs } from "../../../scripts/bench/ours/index";
import { playHistories } from "./jobHistories";

const TRANSACTIONS_MIN = 100_000;
const PARTS = 5;
/** Histories played before the transactions are counted once more. */
const RUNS = 20;

test.each(Array.from({ length: PARTS }, (_, part) => part + 1))(
  "jobs come to their end over tens of thousands of overlapping transactions: part %i",
  async () => {
    const app = await loadOurs(process.cwd());
    let transactions = 0;
    const reached = new Set<string>();
    while (transactions < TRANSACTIONS_MIN / PARTS) {
      const seen = await playHistories(app, RUNS);
      transactions += seen.transactions;
      for (const what of seen.reached.keys()) reached.add(what);
    }
    expect([...reached].sort()).toEqual(
      expect.arrayContaining([
        "a slot that another has by now",
        "a worker that dies with its claim",
        "a worker that dies with the next job",
        "a worker that never starts",
        "cancel: cancelled",
        "cancel: cancelling",
        "cancel: ended",
        "complete: false",
        "complete: true",
        "enqueue: run",
        "enqueue: saturated",
        "enqueue: waiting",
        "fail: cancelled",
        "fail: dead_letter",
        "fail: failed",
        "fail: not_running",
        "fail: requeued",
        "heartbeat: false",
        "heartbeat: true",
        "resize",
        "toolJobs:claimNext",
        "toolJobs:deferDeadLetter",
        "toolJobs:requeueDeadLetter",
        "toolJobs:requeueDeadLetters",
      ]),
    );
  },
);
