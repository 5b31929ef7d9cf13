import { seedOf } from "./seed";

export interface MailMessage {
  readonly id: string;
  readonly threadId: string;
  readonly labelIds: readonly string[];
  readonly historyId: number;
  readonly from: string;
  readonly to: string;
  readonly subject: string;
  readonly body: string;
  readonly sentAtMs: number;
}

export interface Mailbox {
  readonly email: string;
  /** Oldest first, with rising history ids. */
  messages: readonly MailMessage[];
  historyId: number;
  /** History before this id is gone. */
  oldestHistoryId: number;
}

export interface Delivered {
  /** History id of the last new message; default is the next one. */
  readonly historyId?: number | undefined;
  readonly count?: number | undefined;
  readonly from?: string | undefined;
  readonly subject?: string | undefined;
  readonly body?: string | undefined;
}

const FIRST_HISTORY_ID = 10_000;
const MESSAGES_AT_FIRST = 12;
const MESSAGES_MAX = 5_000;
const FIRST_SENT_AT_MS = Date.UTC(2025, 9, 1, 9);
const BETWEEN_MS = 3_600_000;
const SUBJECTS = [
  "Your order has shipped",
  "Order confirmation — thank you",
  "Lunch in Zürich on Friday?",
  "Invoice for October",
  "東京 trip: tickets",
];

/** Mailboxes by address. One that nobody has touched always holds the same messages. */
export class Mailboxes {
  private readonly known = new Map<string, Mailbox>();

  of(email: string): Mailbox {
    const key = email.toLowerCase();
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const fresh: Mailbox = {
      email,
      messages: [],
      historyId: FIRST_HISTORY_ID,
      oldestHistoryId: FIRST_HISTORY_ID,
    };
    this.known.set(key, fresh);
    this.deliver(email, { count: MESSAGES_AT_FIRST });
    return fresh;
  }

  /** Puts new messages into a mailbox; one that is already past `historyId` stays as it is. */
  deliver(email: string, delivered: Delivered): Mailbox {
    const mailbox = this.of(email);
    const count = Math.min(delivered.count ?? 1, MESSAGES_MAX - mailbox.messages.length);
    const last = delivered.historyId ?? mailbox.historyId + count;
    if (last <= mailbox.historyId) return mailbox;
    const fitting = Math.min(count, last - mailbox.historyId);
    const added = Array.from({ length: fitting }, (_, index) =>
      messageOf(mailbox, last - fitting + 1 + index, delivered),
    );
    mailbox.messages = [...mailbox.messages, ...added];
    mailbox.historyId = last;
    return mailbox;
  }

  /** Makes every history id before this one answer 404, as Gmail does after a week or so. */
  expire(email: string, beforeHistoryId: number): void {
    this.of(email).oldestHistoryId = beforeHistoryId;
  }

  clear(): void {
    this.known.clear();
  }
}

function messageOf(mailbox: Mailbox, historyId: number, given: Delivered): MailMessage {
  const seed = seedOf("mail", mailbox.email, String(historyId));
  const id = `19${seed.hex("id", 14)}`;
  return {
    id,
    threadId: id,
    labelIds: ["UNREAD", "CATEGORY_UPDATES", "INBOX"],
    historyId,
    from: given.from ?? `Simmart <orders-${seed.hex("from", 4)}@simmart.example>`,
    to: mailbox.email,
    subject: given.subject ?? seed.pick("subject", SUBJECTS),
    body:
      given.body ??
      `Hello,\n\nyour order ${seed.id("order", 10)} is on its way.\n\nSimmart café team\n`,
    sentAtMs: FIRST_SENT_AT_MS + (historyId - FIRST_HISTORY_ID) * BETWEEN_MS,
  };
}
