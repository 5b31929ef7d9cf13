import { getConvexSize } from "convex/values";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { KIB, MIB } from "../../core/bytes";
import { errorData } from "../../errors/appError";
import { DATA_BYTES_MAX } from "./data";
import { DELIVERY_EVENTS_MAX } from "./delivery";
import type { MessageEvent, WhatsappEvent } from "./event";
import {
  byClaim,
  DELIVERY_BYTES_MAX,
  EVENTS_EACH_MAX,
  PART_BYTES_MAX,
  PART_EVENTS_MAX,
  planOf,
} from "./parts";
import { TEXT_CODE_POINTS_MAX } from "./text";

const message = (id: string, text = "hello"): MessageEvent => ({
  type: "message",
  messageId: id,
  from: "18765550123",
  fromUserId: null,
  phoneNumberId: "300000000000001",
  kind: "text",
  text,
  textTruncated: false,
  mediaId: null,
  contextId: null,
  sentAtMs: 1_790_000_000_000,
});

const messages = (count: number, text?: string): MessageEvent[] =>
  Array.from({ length: count }, (_, i) => message(`m${i}`, text));

const sizeOf = (events: readonly WhatsappEvent[]): number =>
  getConvexSize(events.map((event) => ({ ...event })));

async function partsOf(events: readonly WhatsappEvent[]): Promise<WhatsappEvent[][]> {
  const plan = await planOf(events);
  return plan.kind === "parts" ? plan.parts : [];
}

async function keyOf(events: readonly WhatsappEvent[]): Promise<string | null> {
  const plan = await planOf(events);
  return plan.kind === "parts" ? plan.key : null;
}

/** The largest event that is ever read: every text at its bound, in characters of four bytes. */
const LARGEST: MessageEvent = {
  ...message("🦀".repeat(128), "🦀".repeat(TEXT_CODE_POINTS_MAX)),
  ...{ from: "🦀".repeat(128), fromUserId: "🦀".repeat(128), phoneNumberId: "🦀".repeat(128) },
  ...{ kind: "🦀".repeat(32), mediaId: "🦀".repeat(128), contextId: "🦀".repeat(128) },
  ...{ dataJson: "x".repeat(DATA_BYTES_MAX), dataTruncated: true },
};

describe("how a delivery is accepted", () => {
  test("up to a hundred different events is one by one, each once", async () => {
    const hundred = messages(EVENTS_EACH_MAX);
    expect(await planOf([...hundred, ...hundred])).toEqual({ kind: "each", events: hundred });
    expect((await planOf(messages(EVENTS_EACH_MAX + 1))).kind).toBe("parts");
  });

  test("beyond that is in parts of bounded events and bytes, in order, none lost or named twice", async () => {
    const texts = fc.array(fc.nat(30 * KIB), { minLength: 101, maxLength: 400, size: "max" });
    await fc.assert(
      fc.asyncProperty(texts, async (lengths) => {
        const events = lengths.map((length, i) => message(`m${i}`, "x".repeat(length)));
        const parts = await partsOf([...events, ...events.slice(0, 50)]);
        expect(parts.flat()).toEqual(events);
        for (const part of parts) {
          expect(part.length).toBeGreaterThan(0);
          expect(part.length).toBeLessThanOrEqual(PART_EVENTS_MAX);
          expect(sizeOf(part)).toBeLessThanOrEqual(PART_BYTES_MAX + 2);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("is claimed by its events, in whatever order and however often they come", async () => {
    const events = messages(200);
    const key = await keyOf(events);
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(await keyOf([...events.toReversed(), ...events])).toBe(key);
    expect(await keyOf(messages(201))).not.toBe(key);
    const changed = [...events.slice(1), message("other")];
    expect(await keyOf(changed)).not.toBe(key);
  });

  test("stays within what one transaction may write and be given", async () => {
    expect(getConvexSize({ ...LARGEST })).toBeLessThan(PART_BYTES_MAX);
    expect(PART_BYTES_MAX).toBeLessThan(512 * KIB);
    // A part ends by its events, or by its bytes: then it and the next are more than one holds.
    const endedByEvents = DELIVERY_EVENTS_MAX / PART_EVENTS_MAX;
    const endedByBytes = (2 * DELIVERY_BYTES_MAX) / PART_BYTES_MAX;
    const PARTS_MAX = endedByEvents + endedByBytes + 1;
    const ROW_FIELDS_BYTES = KIB;
    // Meta writes a report with price and conversation in about 330 bytes.
    expect(DELIVERY_EVENTS_MAX).toBeGreaterThan((3 * MIB) / 330);
    expect(DELIVERY_BYTES_MAX + PARTS_MAX * ROW_FIELDS_BYTES).toBeLessThan(16 * MIB);
  });

  test("whose events come to more bytes than that is too large", async () => {
    const count = Math.floor(DELIVERY_BYTES_MAX / getConvexSize({ ...LARGEST }));
    const named = (i: number) => ({
      ...LARGEST,
      messageId: LARGEST.messageId.slice(4) + String(1_000 + i),
    });
    const events = Array.from({ length: count + 1 }, (_, i) => named(i));
    expect((await planOf(events.slice(1))).kind).toBe("parts");
    await expect(planOf(events).catch((error: unknown) => errorData(error).code)).resolves.toBe(
      "payload_too_large",
    );
  });

  test("keeps the first of two messages with one id", () => {
    const first = message("m0", "first");
    expect([...byClaim([first, message("m0", "second")]).values()]).toEqual([first]);
  });

  test("tells messages and reports of one id apart", () => {
    const report = { type: "status", messageId: "m0", status: "read", atMs: 1 } as const;
    const events = [message("m0"), { ...report, errorCode: null, recipient: null }];
    expect([...byClaim(events).values()]).toEqual(events);
  });
});
