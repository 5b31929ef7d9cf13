import { defineConfig } from "vitest/config";

// Two projects: what runs in Convex's default runtime is tested in an edge runtime, so that an
// accidental Node API fails here; what runs on Node (host, simulators, scripts, end to end) is not.
export default defineConfig({
  test: {
    // Files of the node project mostly wait for servers of their own, so that another worker costs
    // nothing where there are two cores; by default there would be one.
    maxWorkers: 3,
    projects: [
      {
        test: {
          name: "edge",
          environment: "edge-runtime",
          // Nothing there keeps state in modules, and loading all of them for each file anew took
          // longer than most files run.
          isolate: false,
          // Properties over long histories share two cores with everything else.
          testTimeout: 30_000,
          include: [
            "convex/**/*.test.ts",
            "src/{core,errors,config,log,http,channels,providers,tools,slo,client}/**/*.test.ts",
            "test/edge/**/*.test.ts",
            "test/contract/functions/*.test.ts",
            "test/museum/*.test.ts",
          ],
          server: { deps: { inline: ["convex-test"] } },
        },
      },
      {
        test: {
          name: "node",
          environment: "node",
          include: [
            "src/{host,sim}/**/*.test.ts",
            "scripts/**/*.test.ts",
            "test/*.test.ts",
            "test/{host,e2e}/**/*.test.ts",
            "test/contract/*.test.ts",
            "test/museum/host/*.test.ts",
          ],
          testTimeout: 180_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
