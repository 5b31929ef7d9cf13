/** A clock that only moves when nothing else can, and a network that follows a script. Tests only. */
import type { Io } from "./io";

interface VirtualIo extends Io {
  /** Every delay that was slept for its whole time, in order. */
  readonly slept: number[];
  /** Requests sent, in order. */
  readonly requests: { readonly url: string; readonly init: RequestInit; readonly atMs: number }[];
}

interface Timer {
  readonly atMs: number;
  readonly fire: () => void;
}

export type FetchScript = (call: number, init: RequestInit, io: VirtualIo) => Promise<Response>;

export const EPOCH_MS = 1_800_000_000_000;

/** Builds the io of one test; `run` drives its clock until the work is done. */
export function virtualIo(script: FetchScript, random = 0.5) {
  let nowMs = EPOCH_MS;
  const timers = new Set<Timer>();
  const io: VirtualIo = {
    slept: [],
    requests: [],
    now: () => nowMs,
    random: () => random,
    sleep: async (delayMs, signal) => {
      await new Promise<void>((resolve) => {
        const end = () => {
          timers.delete(timer);
          signal?.removeEventListener("abort", end);
          resolve();
        };
        const fire = () => {
          io.slept.push(delayMs);
          end();
        };
        const timer: Timer = { atMs: nowMs + delayMs, fire };
        timers.add(timer);
        signal?.addEventListener("abort", end);
        if (signal?.aborted === true) end();
      });
    },
    fetch: async (url, init) => {
      io.requests.push({ url, init, atMs: nowMs });
      return await script(io.requests.length, init, io);
    },
  };

  /** Runs work to its end, moving the clock to the next timer whenever all else has come to rest. */
  async function run<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const end = () => {
      settled = true;
    };
    work.then(end, end);
    const isSettled = () => settled;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (isSettled()) return await work;
      const next = [...timers].sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) continue;
      nowMs = Math.max(nowMs, next.atMs);
      next.fire();
    }
  }

  return { io, run, pendingTimers: () => timers.size };
}

export type BodyStep =
  | Uint8Array
  | string
  | { readonly waitMs: number }
  | { readonly stop: "hang" | "break" }
  | (() => void);

/** The body goes silent for good, or its connection breaks. */
export const HANG: BodyStep = { stop: "hang" };
export const BREAK: BodyStep = { stop: "break" };

export interface ScriptedBody {
  readonly stream: ReadableStream<Uint8Array>;
  readonly wasCancelled: () => boolean;
}

/** A body that yields the steps in order, then ends. */
export function scriptedBody(steps: readonly BodyStep[], io: Pick<Io, "sleep">): ScriptedBody {
  const cancelled = new AbortController();
  let next = 0;
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (;;) {
        const step = steps[next++];
        if (step === undefined) {
          controller.close();
          return;
        }
        if (typeof step === "function") {
          step();
          continue;
        }
        if (typeof step === "object" && "waitMs" in step) {
          await io.sleep(step.waitMs, cancelled.signal);
          if (cancelled.signal.aborted) return;
          continue;
        }
        if (typeof step === "object" && "stop" in step) {
          if (step.stop === "break") controller.error(new TypeError("terminated"));
          else await new Promise(() => undefined);
          return;
        }
        const bytes = typeof step === "string" ? new TextEncoder().encode(step) : step;
        // An empty chunk would end the pull without moving the stream on.
        if (bytes.byteLength === 0) continue;
        controller.enqueue(bytes);
        return;
      }
    },
    cancel() {
      cancelled.abort();
    },
  });
  return { stream, wasCancelled: () => cancelled.signal.aborted };
}

/** A JSON answer. */
export function jsonResponse(
  value: unknown,
  init: { status?: number; headers?: Record<string, string> } = {},
): Response {
  return new Response(JSON.stringify(value), {
    status: init.status ?? 200,
    headers: { "content-type": "application/json", ...init.headers },
  });
}
