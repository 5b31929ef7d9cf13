import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { brotliDecompressSync } from "node:zlib";

export interface PushedModule {
  readonly path: string;
  readonly source: string;
  readonly environment: "isolate" | "node";
}

/** What of a push matters here. */
export interface Push {
  readonly dryRun: boolean;
  readonly appDefinition: {
    readonly changedModules: readonly PushedModule[];
    readonly schema: PushedModule | null;
    readonly auth: PushedModule | null;
    readonly definition: PushedModule | null;
  };
  readonly nodeDependencies: readonly { readonly name: string; readonly version: string }[];
}

export interface PushStub {
  readonly url: string;
  readonly adminKey: string;
  /** Paths asked for, in order. */
  readonly requests: string[];
  readonly pushes: Push[];
  close(): Promise<void>;
}

const COMPONENT = {
  definition: {
    path: "",
    definitionType: { type: "app" },
    childComponents: [],
    httpMounts: {},
    exports: { type: "branch", branch: [] },
  },
  schema: null,
  functions: {},
  udfConfig: { serverVersion: "1.48.0", importPhaseRngSeed: null, importPhaseUnixTimestamp: null },
};

const STARTED = {
  environmentVariables: {},
  externalDepsId: null,
  componentDefinitionPackages: { "": null },
  appAuth: [],
  analysis: { "": COMPONENT },
  app: {
    definitionPath: "",
    componentPath: "",
    args: {},
    childComponents: {},
    httpRoutes: { httpModuleRoutes: null, mounts: [] },
    exports: {},
  },
  schemaChange: { allocatedComponentIds: {}, schemaIds: {}, indexDiffs: {} },
};

const ANSWERS: Readonly<Record<string, unknown>> = {
  "/api/get_config_hashes": {
    config: { functions: "convex/" },
    nodeDependencies: [],
    moduleHashes: [],
    udfServerVersion: "1.48.0",
    nodeVersion: null,
  },
  "/api/v1/get_canonical_urls": {
    convexCloudUrl: "http://cloud.test",
    convexSiteUrl: "http://site.test",
  },
  "/api/deploy2/start_push": STARTED,
  "/api/deploy2/evaluate_push": { schemaChange: STARTED.schemaChange },
  "/api/deploy2/wait_for_schema": { type: "complete" },
  "/api/deploy2/finish_push": {
    authDiff: { added: [], removed: [] },
    definitionDiffs: {},
    componentDiffs: {},
  },
  "/api/deploy2/report_push_completed": null,
};

/** Answers the real command line's push as a deployment would, and keeps what was pushed. */
export async function startPushStub(): Promise<PushStub> {
  const requests: string[] = [];
  const pushes: Push[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = (request.url ?? "").split("?")[0] ?? "";
      requests.push(path);
      const raw = Buffer.concat(chunks);
      const text = request.headers["content-encoding"] === "br" ? brotliDecompressSync(raw) : raw;
      if (path.endsWith("/start_push") || path.endsWith("/evaluate_push"))
        pushes.push(JSON.parse(text.toString()) as Push);
      const answer = ANSWERS[path];
      response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
      response.end(JSON.stringify(answer ?? { code: "NotFound", message: path }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const close = () =>
    new Promise<void>((resolve) => {
      server.closeAllConnections();
      server.close(() => {
        resolve();
      });
    });
  return { url, adminKey: "stub|00", requests, pushes, close };
}
