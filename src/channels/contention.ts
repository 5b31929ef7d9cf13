import { fullJitterMs } from "../core/backoff";
import { SECOND } from "../core/time";
import { errorData, isContention } from "../errors/appError";
import { type Io, platformIo } from "../providers/io";

/** Admissions tried before a caller is told to come back; the platform retries each by itself. */
const TRIES_MAX = 3;
const PAUSE_BASE_MS = SECOND;
const PAUSE_MAX_MS = 4 * SECOND;

/**
 * Runs an admission, and again after a pause where the platform gave up on conflicts: a crowd that
 * came at once would else be told that the service is busy when it is not. The pause is what breaks
 * the crowd up; the platform's own, up to a second, are shorter than the work of a large one.
 */
export async function throughContention<Result>(
  admit: () => Promise<Result>,
  io: Pick<Io, "sleep" | "random"> = platformIo,
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await admit();
    } catch (error) {
      if (attempt === TRIES_MAX || !isContention(errorData(error))) throw error;
      const { random } = io;
      await io.sleep(fullJitterMs({ attempt, baseMs: PAUSE_BASE_MS, capMs: PAUSE_MAX_MS, random }));
    }
  }
}
