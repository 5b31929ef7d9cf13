import path from "node:path";
import type { Definition } from "../engine/app";
import { define, loadComponent } from "../engine/load";
import * as bare from "./bare";
import * as cache from "./cache";
import * as jobs from "./jobs";
import * as limiter from "./limiter";
import schema from "./schema";

/** An app that uses the components which the benchmark compares with, and nothing else. */
export async function loadPeers(projectDir: string): Promise<Definition> {
  const packages = path.join(projectDir, "node_modules", "@convex-dev");
  // The work pool ships its own, older batch worker.
  const own = path.join(packages, "workpool", "node_modules", "@convex-dev", "batch-worker");
  const [limiterWorker, poolWorker] = await Promise.all(
    [path.join(packages, "batch-worker"), own].map((dir) => loadComponent(dir)),
  );
  if (limiterWorker === undefined || poolWorker === undefined) throw new Error("both are loaded");
  return define({ bare, cache, jobs, limiter }, schema, {
    actionCache: await loadComponent(path.join(packages, "action-cache")),
    rateLimiter: await loadComponent(path.join(packages, "rate-limiter"), {
      batchWorker: limiterWorker,
    }),
    workpool: await loadComponent(path.join(packages, "workpool"), { batchWorker: poolWorker }),
  });
}
