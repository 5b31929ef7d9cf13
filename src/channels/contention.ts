import { fullJitterMs } from "../core/backoff";
import { SECOND } from "../core/time";
import { errorData, isContention } from "../errors/appError";
import { log } from "../log/log";
import { type Io, platformIo } from "../providers/io";

/** Admissions tried before a caller is told to come back; the platform retries each by itself. */
const TRIES_MAX = 3;
const PAUSE_BASE_MS = SECOND;
const PAUSE_MAX_MS = 4 * SECOND;

interface ContentionOptions {
  readonly io?: Pick<Io, "sleep" | "random">;
  /** Limits that the last try does without: they are declared to let through what they lost. */
  readonly failOpen?: readonly string[];
  /** Counts an admission that was lost for good; its own transaction could not. */
  readonly lost?: () => Promise<unknown>;
}

/**
 * Runs an admission, and again after a pause where the platform gave up on conflicts: a crowd that
 * came at once would else be told that the service is busy when it is not. The pause is what breaks
 * the crowd up; the platform's own, up to a second, are shorter than the work of a large one. The
 * last try is told the names of the limits to leave out, so that they cannot lose it as well.
 */
export async function throughContention<Result>(
  admit: (leaveOut: string[]) => Promise<Result>,
  { failOpen = [], io = platformIo, lost }: ContentionOptions = {},
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await admit(attempt < TRIES_MAX ? [] : [...failOpen]);
    } catch (error) {
      if (!isContention(errorData(error))) throw error;
      if (attempt === TRIES_MAX) {
        await tell(lost);
        throw error;
      }
      const { random } = io;
      await io.sleep(fullJitterMs({ attempt, baseMs: PAUSE_BASE_MS, capMs: PAUSE_MAX_MS, random }));
    }
  }
}

/** The refusal stands, whether or not it could be counted. */
async function tell(lost: ContentionOptions["lost"]): Promise<void> {
  try {
    await lost?.();
  } catch (error) {
    log.event("contention_uncounted", { code: errorData(error).code });
  }
}
