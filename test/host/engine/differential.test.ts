import { test } from "vitest";
import { agreeWithMock } from "./differential";

test("random programs give the same results and state as on the official mock", async () => {
  await agreeWithMock(50);
});
