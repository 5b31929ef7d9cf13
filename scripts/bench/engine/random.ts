/** Uniform numbers in [0, 1); the same seed gives the same ones. */
export type Random = () => number;

const WARM_UP_DRAWS = 12;
const WORD = 2 ** 32;

/**
 * Chris Doty-Humphrey's sfc32: small, fast, and good enough to draw arrivals and shards from. A seed
 * is any whole number from 0 that is exact, more than one word of the state: no two begin alike.
 */
export function seededRandom(seed: number): Random {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new RangeError(`A seed must be a whole number from 0 to 2 ** 53 - 1; got ${seed}.`);
  let a = seed >>> 0;
  let b = 0x9e3779b9 ^ Math.floor(seed / WORD);
  let c = 0x243f6a88;
  let counter = 1;
  const next = (): number => {
    const mixed = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + mixed;
    return (mixed >>> 0) / 2 ** 32;
  };
  for (let draw = 0; draw < WARM_UP_DRAWS; draw++) next();
  return next;
}
