import { defineConfig } from "vitest/config";

// Tests that need minutes: crash rounds, long histories. CI runs them after the short ones.
export default defineConfig({
  test: {
    environment: "node",
    include: ["**/*.long.ts"],
    exclude: ["node_modules/**"],
    testTimeout: 600_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
