import { test } from "vitest";
import { surviveKills } from "./crash";

test("what was acknowledged survives kills of the process, and nothing by halves", async () => {
  await surviveKills(4);
});
