/** A site over stub handlers, for tests: real requests in, answers and what was reached out. */
import { httpActionGeneric, httpRouter } from "convex/server";
import type { Handlers } from "./edge";
import { mount, type Mounting } from "./mount";
import type { PipelineCtx } from "./pipeline";
import { ROUTE_IDS } from "./routes";

const SITE = "https://ballast.example";
export const ORIGIN = "https://app.example";

export interface TestSite {
  readonly send: (request: Request) => Promise<Response>;
  /** Guards and handlers, in the order in which they were reached. */
  readonly steps: readonly string[];
  /** What the last handler was given. */
  readonly calls: readonly Record<string, unknown>[];
  readonly router: ReturnType<typeof httpRouter>;
}

export type SiteOptions = Partial<Omit<Mounting<PipelineCtx>, "handlers">> & {
  /** The subject of the token, null for none; `throws` is a token that the platform cannot parse. */
  readonly identity?: unknown;
  readonly ip?: string | null;
  /** In place of every stub. */
  readonly handler?: () => Promise<Response>;
};

/** Mounts the real routes with handlers that only write down that they were reached. */
export function testSite({ identity = "alice", ip, handler, ...more }: SiteOptions = {}): TestSite {
  const steps: string[] = [];
  const calls: Record<string, unknown>[] = [];
  const ctx: PipelineCtx = {
    auth: {
      getUserIdentity: async () => {
        steps.push("identity");
        if (identity === "throws") throw new Error("could not parse the token");
        return identity === null ? null : { subject: identity };
      },
    },
    meta: { getRequestMetadata: async () => ({ ip: ip === undefined ? "203.0.113.7" : ip }) },
  };
  const reach = (name: string) => async (_ctx: PipelineCtx, call: Record<string, unknown>) => {
    steps.push(name);
    calls.push(call);
    return handler === undefined ? Response.json({ reached: name }) : await handler();
  };
  const sign = async (): Promise<void> => {
    steps.push("signature");
  };
  const router = httpRouter();
  mount<PipelineCtx>({
    router,
    // The platform passes a context of its own; the test's stands in for it.
    httpAction: (handle) => httpActionGeneric((_ctx, request) => handle(ctx, request)),
    handlers: Object.fromEntries(
      ROUTE_IDS.map((id) => [id, reach(id)]),
    ) as unknown as Handlers<PipelineCtx>,
    verifiers: { "hub-256": sign, "google-push": sign },
    env: { ALLOWED_ORIGINS: `${ORIGIN},https://other.example` },
    random: () => 0,
    ...more,
  });
  return { steps, calls, router, send: (request) => dispatch(router, request) };
}

type Routed = readonly [{ _handler: (ctx: unknown, request: Request) => Promise<Response> }];

/** Routes a request as the platform does. */
async function dispatch(router: TestSite["router"], request: Request): Promise<Response> {
  const path = new URL(request.url).pathname;
  const found = router.lookup(path, request.method as "GET") as unknown as Routed | null;
  if (found === null) throw new Error("the platform would answer this itself, in plain text");
  return await found[0]._handler({}, request);
}

/** A request to the test site. */
export const at = (path: string, init: RequestInit = {}): Request =>
  new Request(`${SITE}${path}`, init);

/** A POST of JSON; text is sent as it is. */
export function post(body: unknown, headers: Readonly<Record<string, string>> = {}): RequestInit {
  return {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers },
  };
}
