/** Work that waits for a clock which stands still. */
import { vi } from "vitest";

// Taken before the clock is stood still: what runs beside the test, such as a digest, needs real time.
const realTimeout = setTimeout;
const QUIET_ROUNDS = 3;
/** How far the clock is moved at once. */
export const STEP_MS = 100;

/** Moves the clock on whenever all else has come to rest, until the work is done. */
export async function drive<T>(work: Promise<T>): Promise<T> {
  let done = false;
  const end = () => {
    done = true;
  };
  work.then(end, end);
  const isDone = () => done;
  for (;;) {
    for (let i = 0; i < QUIET_ROUNDS && !isDone(); i++)
      await new Promise<void>((resolve) => realTimeout(resolve, 0));
    if (isDone()) return await work;
    await vi.advanceTimersByTimeAsync(STEP_MS);
  }
}
