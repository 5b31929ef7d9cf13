import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  joinStatus,
  type MessageStatus,
  NO_STATUS,
  STATUS_LADDER,
  type StatusEvent,
  type StatusState,
} from "./status";

const event = (status: MessageStatus, atMs = 1, errorCode: number | null = null): StatusEvent => ({
  status,
  atMs,
  errorCode,
});

const joinAll = (events: readonly StatusEvent[]): StatusState =>
  events.reduce(joinStatus, NO_STATUS);

const statusAfter = (...words: MessageStatus[]): MessageStatus | null =>
  joinAll(words.map((word) => event(word))).status;

// Few times and codes, so that events of one instant and equal events are common.
const anyEvent: fc.Arbitrary<StatusEvent> = fc.record({
  status: fc.constantFrom(...STATUS_LADDER),
  atMs: fc.integer({ min: 0, max: 3 }),
  errorCode: fc.option(fc.integer({ min: 0, max: 2 }), { nil: null }),
});
const history = fc.array(anyEvent, { size: "max", maxLength: 20 });

describe("the status of a message", () => {
  test.each<[MessageStatus[], MessageStatus]>([
    [["sent", "delivered", "read", "played"], "played"],
    [["played", "read", "delivered", "sent"], "played"],
    [["read"], "read"],
    [["read", "sent"], "read"],
    [["sent", "failed"], "failed"],
    [["failed", "sent"], "failed"],
    [["failed", "delivered"], "delivered"],
    [["delivered", "failed"], "delivered"],
  ])("after %j is %j", (words, expected) => {
    expect(statusAfter(...words)).toBe(expected);
  });

  test("is unknown before any report", () => {
    expect(NO_STATUS.status).toBeNull();
  });
});

describe("a failure", () => {
  test("stays recorded after a delivery to another device", () => {
    const state = joinAll([event("failed", 5, 131026), event("delivered", 6), event("read", 7)]);
    expect(state).toEqual({
      status: "read",
      firstAtMs: { failed: 5, delivered: 6, read: 7 },
      failure: { atMs: 5, errorCode: 131026 },
    });
  });

  test("is the earliest one, and of two at once the one that names its cause", () => {
    expect(joinAll([event("failed", 9, 2), event("failed", 5, 1)]).failure).toEqual({
      atMs: 5,
      errorCode: 1,
    });
    expect(joinAll([event("failed", 5), event("failed", 5, 1)]).failure?.errorCode).toBe(1);
    expect(joinAll([event("failed", 5, 1), event("failed", 5)]).failure?.errorCode).toBe(1);
  });
});

describe("joining", () => {
  test("does not depend on the order of events", () => {
    const shuffled = history.chain((events) =>
      fc.tuple(fc.constant(events), fc.shuffledSubarray(events, { minLength: events.length })),
    );
    fc.assert(
      fc.property(shuffled, ([events, reordered]) => {
        expect(joinAll(reordered)).toEqual(joinAll(events));
      }),
    );
  });

  test("does not depend on how often an event comes, or when it comes again", () => {
    fc.assert(
      fc.property(history, fc.infiniteStream(fc.nat()), (events, picks) => {
        const repeated = events.flatMap((one, index) => {
          const [pick = 0] = picks.take(1);
          return [one, events[pick % (index + 1)] ?? one];
        });
        expect(joinAll(repeated)).toEqual(joinAll(events));
      }),
    );
  });

  test("never weakens a status", () => {
    fc.assert(
      fc.property(history, anyEvent, (events, next) => {
        const before = joinAll(events);
        const rank = ({ status }: StatusState) => STATUS_LADDER.findIndex((one) => one === status);
        expect(rank(joinStatus(before, next))).toBeGreaterThanOrEqual(rank(before));
      }),
    );
  });
});
