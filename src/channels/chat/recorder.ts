import { KIB } from "../../core/bytes";
import { SECOND } from "../../core/time";
import type { Io } from "../../providers/io";
import { type ChatEvent, encodeFrame, frameData } from "./events";

/** What storing frames answers: whether the turn is still ours, and whether it is to end. */
export type StoreReply =
  { readonly live: true; readonly abort: boolean } | { readonly live: false };

export interface RecorderPorts {
  /** Stores frames after the ones stored so far; without any it is a heartbeat. */
  readonly store: (firstFrameId: number, frames: readonly string[]) => Promise<StoreReply>;
  /** Sends text to the client, if one is still there. */
  readonly send: (text: string) => void;
  readonly now: Io["now"];
  readonly sleep: Io["sleep"];
  /** Called once, when the user aborted or the stream was ended by someone else. */
  readonly onStop: (reason: "aborted" | "lost") => void;
}

/** Stored every half second at first, so that a short answer can be resumed early. */
const STORE_EVERY_MIN_MS = SECOND / 2;
/** Longest time between stores while text flows: how late an abort is noticed. */
const STORE_EVERY_MAX_MS = 2 * SECOND;
const STORE_GROWTH = 1.5;
const STORE_BYTES = 8 * KIB;
/** Heartbeat in silence. */
const HEARTBEAT_MS = 5 * SECOND;

/**
 * Says events to the client at once and stores them in chunks. A frame that was sent before it was
 * stored has no id; the last frame of each chunk waits for its store and carries one, which tells
 * the client that everything up to it can be had again.
 */
export class Recorder {
  private readonly ports: RecorderPorts;
  private pending: string[] = [];
  private pendingBytes = 0;
  private nextId: number;
  private storedAtMs: number;
  private everyMs = STORE_EVERY_MIN_MS;
  private queue: Promise<void> = Promise.resolve();
  private stopped: "aborted" | "lost" | null = null;
  private readonly pulse = new AbortController();
  /** Bytes of all frames said so far. */
  saidBytes = 0;

  constructor(ports: RecorderPorts, nextId: number) {
    this.ports = ports;
    this.nextId = nextId;
    this.storedAtMs = ports.now();
  }

  /** Sends frames that admission has stored already. */
  replay(frames: readonly string[]): void {
    for (const [i, data] of frames.entries())
      this.ports.send(encodeFrame(data, this.nextId - frames.length + i));
  }

  /** Sends one event, and stores what is pending when that is due. */
  async say(event: ChatEvent): Promise<void> {
    const data = frameData(event);
    this.saidBytes += data.length;
    await this.exclusively(async () => {
      this.pending.push(data);
      this.pendingBytes += data.length;
      const stored = this.isDue() && (await this.store());
      this.ports.send(encodeFrame(data, stored ? this.nextId - 1 : null));
    });
  }

  /** Stores and watches for an abort while nothing is said. Ends with `finish`. */
  async keepAlive(): Promise<void> {
    const { signal } = this.pulse;
    for (;;) {
      const dueMs = this.storedAtMs + HEARTBEAT_MS - this.ports.now();
      if (dueMs > 0) await this.ports.sleep(dueMs, signal);
      if (signal.aborted) return;
      if (this.ports.now() < this.storedAtMs + HEARTBEAT_MS) continue;
      await this.exclusively(async () => {
        await this.store();
      });
    }
  }

  /** Ends the recording: what is left to be stored by the settlement, with its first id. */
  async finish(): Promise<{ readonly firstFrameId: number; readonly frames: string[] }> {
    this.pulse.abort();
    await this.queue;
    return { firstFrameId: this.nextId, frames: this.pending };
  }

  private isDue(): boolean {
    return this.pendingBytes >= STORE_BYTES || this.ports.now() - this.storedAtMs >= this.everyMs;
  }

  private async store(): Promise<boolean> {
    const frames = this.pending;
    // A failed store is tried again with the next one; until then nothing is given an id.
    const reply = await this.ports.store(this.nextId, frames).catch(() => null);
    this.storedAtMs = this.ports.now();
    if (reply === null) return false;
    if (!reply.live) {
      this.stop("lost");
      return false;
    }
    this.nextId += frames.length;
    this.pending = [];
    this.pendingBytes = 0;
    this.everyMs = Math.min(STORE_EVERY_MAX_MS, this.everyMs * STORE_GROWTH);
    if (reply.abort) this.stop("aborted");
    return true;
  }

  private stop(reason: "aborted" | "lost"): void {
    if (this.stopped !== null) return;
    this.stopped = reason;
    this.ports.onStop(reason);
  }

  /** Frames are stored in the order they were said, whoever asks: one store at a time. */
  private async exclusively(work: () => Promise<void>): Promise<void> {
    const turn = this.queue.then(work);
    this.queue = turn.catch(() => undefined);
    await turn;
  }
}
