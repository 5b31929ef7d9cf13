import { getConvexSize } from "convex/values";
import { KIB, MIB } from "../../core/bytes";
import { AppError } from "../../errors/appError";
import { toHex } from "../signature/hmac";
import { claimKey, type WhatsappEvent } from "./event";

/** Events that are claimed and stored one by one, in the transaction that accepts them. */
export const EVENTS_EACH_MAX = 100;
/** Events of a part: as many as one transaction claims later. */
export const PART_EVENTS_MAX = 100;
/**
 * Bytes of a part, as the database counts them. It holds the largest event, of 16 KiB of text and 8
 * KiB of data, and is small enough for the operators' snapshot, which reads some rows of the inbox.
 */
export const PART_BYTES_MAX = 32 * KIB;
/**
 * Bytes of all parts: with what the rows add, below the 16 MiB that a transaction may write and be
 * given. A body of 3 MiB comes to less, unless the names in it are made to fill it.
 */
export const DELIVERY_BYTES_MAX = 9 * MIB;

/** How the events of one delivery are accepted, each of them named once. */
export type Plan =
  | { readonly kind: "each"; readonly events: WhatsappEvent[] }
  | {
      readonly kind: "parts";
      /** Claim of the delivery as a whole. */
      readonly key: string;
      readonly parts: WhatsappEvent[][];
    };

/**
 * Plans how to accept a delivery in one transaction: a small one event by event, a larger one in
 * parts whose events are claimed when their turn comes, because a transaction may look up only so
 * many claims. Throws `payload_too_large` for what no transaction would hold.
 */
export async function planOf(events: readonly WhatsappEvent[]): Promise<Plan> {
  const named = byClaim(events);
  const distinct = [...named.values()];
  if (distinct.length <= EVENTS_EACH_MAX) return { kind: "each", events: distinct };
  return { kind: "parts", key: await digestOf([...named.keys()]), parts: partsOf(distinct) };
}

/** The events by scope and key of their claims, of those with one claim the first. */
export function byClaim(events: readonly WhatsappEvent[]): Map<string, WhatsappEvent> {
  const named = new Map<string, WhatsappEvent>();
  for (const event of events) {
    const { scope, key } = claimKey(event);
    const name = `${scope} ${key}`;
    if (!named.has(name)) named.set(name, event);
  }
  return named;
}

function partsOf(events: readonly WhatsappEvent[]): WhatsappEvent[][] {
  const parts: WhatsappEvent[][] = [];
  let part: WhatsappEvent[] = [];
  let partBytes = 0;
  let bytes = 0;
  for (const event of events) {
    const size = getConvexSize({ ...event });
    bytes += size;
    if (bytes > DELIVERY_BYTES_MAX) throw tooLarge();
    const full = part.length === PART_EVENTS_MAX || partBytes + size > PART_BYTES_MAX;
    if (full && part.length > 0) {
      parts.push(part);
      [part, partBytes] = [[], 0];
    }
    part.push(event);
    partBytes += size;
  }
  return [...parts, part];
}

/** The same for the same events in any order, whatever bytes they came in. */
async function digestOf(keys: readonly string[]): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify([...keys].sort()));
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

const tooLarge = (): AppError =>
  new AppError("payload_too_large", {
    detail: `What is stored of a delivery may have at most ${DELIVERY_BYTES_MAX} bytes.`,
  });
