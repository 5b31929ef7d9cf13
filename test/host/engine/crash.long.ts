import { test } from "vitest";
import { surviveKills } from "./crash";

test("what was acknowledged survives many kills of the process, and nothing by halves", async () => {
  await surviveKills(30);
});
