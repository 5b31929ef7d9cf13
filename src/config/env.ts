/** A deployment's variables. Read by name only: the platform's object lists none and `in` is false. */
export type Env = Readonly<Record<string, string | undefined>>;

/** The only reader of `process.env` in code that runs on Convex. */
// eslint-disable-next-line no-restricted-properties -- every other module reads knobs through this one
export const env: Env = process.env;
