import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Host, startHost } from "../../src/host/index";

const PROJECT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const TMP = path.join(PROJECT, ".output", "tmp");

let host: Host;
let dataDir: string;

beforeAll(async () => {
  mkdirSync(TMP, { recursive: true });
  dataDir = mkdtempSync(path.join(TMP, "verifiers-"));
  const functionsDir = path.join(PROJECT, "test/vectors/app/convex");
  // A fresh global object for each call, as on the platform.
  host = await startHost({ functionsDir, dataDir, isolation: "call" });
});
afterAll(async () => {
  await host.close();
  rmSync(dataDir, { recursive: true, force: true });
});

// The same tables as beside the sources, in the runtime that functions are given: what passes on
// Node alone proves nothing about WebCrypto, headers and text encoding in there.
test.each([
  ["verifiers:hub", 50],
  ["verifiers:google", 60],
])("in the sandboxed runtime %s has no failures", async (name, atLeast) => {
  const result = (await host.run(name)) as { total: number; failures: string[] };
  expect(result.failures).toEqual([]);
  expect(result.total).toBeGreaterThanOrEqual(atLeast);
});
