/** Ids of tool calls, each once in a turn and in its thread: results are joined to calls by them. */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/** The strictest provider takes exactly nine letters and digits. */
const MADE_LENGTH = 9;
/** Draws before a number is added: chance alone never needs a second one. */
const DRAWS_MAX = 8;

/** Longest id of a provider that is shown and stored; longer ones carry what is not for that. */
const SHOWN_LENGTH_MAX = 256;

interface CallIdsOptions {
  /** Ids of the calls of the thread, as far as they are known. */
  readonly taken: Iterable<string>;
  /** Whether `taken` is all of them; if not, a provider's id may be one that was not looked at. */
  readonly isAll: boolean;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/** The ids of one call. */
export interface CallId {
  /** By which frontends and tables know it. */
  readonly id: string;
  /** Under which it goes back to its provider, within the turn. */
  readonly sentId: string;
}

export class CallIds {
  private readonly taken: Set<string>;
  private readonly isAll: boolean;
  private readonly random: () => number;

  constructor({ isAll, random, taken }: CallIdsOptions) {
    this.taken = new Set(taken);
    this.isAll = isAll;
    this.random = random;
  }

  /**
   * The ids of a new call: the provider's own where no other call can have it. Some providers count
   * anew in each answer, or give all calls of an answer one id. What goes back has only the calls
   * that go along with it to be told from.
   */
  take(providerId: string): CallId {
    const isFree = !this.taken.has(providerId);
    const isShown = isFree && this.isAll && providerId.length <= SHOWN_LENGTH_MAX;
    const id = isShown ? providerId : this.make();
    this.taken.add(id).add(providerId);
    return { id, sentId: isFree ? providerId : id };
  }

  private make(): string {
    for (let draw = 0; draw < DRAWS_MAX; draw++) {
      const id = this.draw();
      if (!this.taken.has(id)) return id;
    }
    return `${this.draw()}${this.taken.size}`;
  }

  private draw(): string {
    return Array.from({ length: MADE_LENGTH }, () =>
      ALPHABET.charAt(Math.floor(this.random() * ALPHABET.length)),
    ).join("");
  }
}
