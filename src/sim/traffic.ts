/** One request that a provider got. Headers are never kept, so no key is. */
export interface SeenRequest {
  readonly provider: string;
  readonly method: string;
  readonly path: string;
  /** Null while the answer is under way. */
  status: number | null;
  /** The client went away before the answer was over. */
  aborted: boolean;
  readonly atMs: number;
}

/** Query parameters that carry keys. */
const SECRET_PARAMETERS = new Set(["api_key", "key", "access_token", "sentry_key", "token"]);
const RECENT_MAX = 200;

/** Counts per provider since the start or the last reset, and the latest requests. */
export class Traffic {
  private counts = new Map<string, number>();
  private recent: SeenRequest[] = [];

  /** Records a request; the caller completes the returned entry. */
  begin(seen: { provider: string; method: string; url: URL; atMs: number }): SeenRequest {
    const entry: SeenRequest = {
      provider: seen.provider,
      method: seen.method,
      path: withoutSecrets(seen.url),
      status: null,
      aborted: false,
      atMs: seen.atMs,
    };
    this.counts.set(seen.provider, this.count(seen.provider) + 1);
    this.recent.push(entry);
    if (this.recent.length > RECENT_MAX) this.recent.shift();
    return entry;
  }

  count(provider: string): number {
    return this.counts.get(provider) ?? 0;
  }

  latest(): readonly SeenRequest[] {
    return this.recent;
  }

  clear(): void {
    this.counts = new Map();
    this.recent = [];
  }
}

function withoutSecrets(url: URL): string {
  const query = new URLSearchParams(url.searchParams);
  for (const name of [...query.keys()]) if (SECRET_PARAMETERS.has(name)) query.set(name, "***");
  return query.size === 0 ? url.pathname : `${url.pathname}?${query.toString()}`;
}
