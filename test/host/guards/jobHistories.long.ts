import { expect, test } from "vitest";
import { loadOurs } from "../../../scripts/bench/ours/index";
import { playHistories } from "./jobHistories";

const TRANSACTIONS_MIN = 100_000;
const PARTS = 5;
/** Histories played before the transactions are counted once more. */
const RUNS = 20;

/** What each part must have come to, so that it judges more than the usual way. */
const WANTED: readonly string[] = [
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
];
/** Some of it is rare: a part goes on until it has come to all, within this many times the least. */
const TIMES_MAX = 5;

test.each(Array.from({ length: PARTS }, (_, part) => part + 1))(
  "jobs come to their end over tens of thousands of overlapping transactions: part %i",
  async () => {
    const app = await loadOurs(process.cwd());
    const least = TRANSACTIONS_MIN / PARTS;
    let transactions = 0;
    const reached = new Set<string>();
    const missing = (): string[] => WANTED.filter((what) => !reached.has(what));
    while (transactions < least || (missing().length > 0 && transactions < least * TIMES_MAX)) {
      const seen = await playHistories(app, RUNS);
      transactions += seen.transactions;
      for (const what of seen.reached.keys()) reached.add(what);
    }
    expect(missing()).toEqual([]);
  },
);
