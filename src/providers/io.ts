/** What an outbound call needs from the world, so that tests own time and the network. */
export interface Io {
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Resolves after the time or as soon as the signal aborts, whichever is first. Never rejects. */
  readonly sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>;
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>;
}

/** The platform's own clock, timers and network; usable in actions only. */
export const platformIo: Io = {
  now: () => Date.now(),
  random: () => Math.random(),
  sleep,
  // Bound late: a test or the host may replace the global after this module is loaded.
  fetch: (url, init) => fetch(url, init),
};

async function sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return;
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, delayMs);
    signal?.addEventListener("abort", end);
  });
}
