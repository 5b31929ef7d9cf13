import { test } from "vitest";
import { holdsForAnyAnswers } from "./modelAnswers";

test("whatever a model answers, ten thousand times, a strict provider takes what follows", async () => {
  await holdsForAnyAnswers(10_000);
});
