/** What the cache was to tool calls, counted by namespace. */

/**
 * Each call is one of: answered fresh; asked for, since nothing could be served first; answered
 * stale while it is renewed; answered stale because asking failed; not asked because it had failed
 * a moment ago.
 */
export type CacheUseKind = "hits" | "misses" | "stale" | "degraded" | "negative";

// A type alias: Convex values need an index signature, which only aliases imply.
export type CacheUse = { readonly namespace: string } & Readonly<Record<CacheUseKind, number>>;

/** One call. */
export const oneUse = (namespace: string, kind: CacheUseKind): CacheUse => ({
  ...unused(namespace),
  [kind]: 1,
});

/** Both lists as one, a namespace once, those of `more` counted `weight` times. */
export function sumUse(
  sum: readonly CacheUse[],
  more: readonly CacheUse[],
  weight = 1,
): CacheUse[] {
  const byNamespace = new Map(sum.map((use) => [use.namespace, use]));
  for (const use of more) {
    const known = byNamespace.get(use.namespace) ?? unused(use.namespace);
    byNamespace.set(use.namespace, {
      namespace: use.namespace,
      hits: known.hits + use.hits * weight,
      misses: known.misses + use.misses * weight,
      stale: known.stale + use.stale * weight,
      degraded: known.degraded + use.degraded * weight,
      negative: known.negative + use.negative * weight,
    });
  }
  return [...byNamespace.values()];
}

const unused = (namespace: string): CacheUse => ({
  namespace,
  hits: 0,
  misses: 0,
  stale: 0,
  degraded: 0,
  negative: 0,
});
