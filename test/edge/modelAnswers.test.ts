import { test } from "vitest";
import { holdsForAnyAnswers } from "./modelAnswers";

test("whatever a model answers, the next request is one that a strict provider takes", async () => {
  await holdsForAnyAnswers(500);
});
