import { test } from "vitest";
import { agreeWithMock } from "./differential";
import { equalsCommitOrder } from "./serializability";

test("many random programs give the same results and state as on the official mock", async () => {
  await agreeWithMock(1_000);
});

test("many concurrent histories give what they give in commit order, one at a time", async () => {
  await equalsCommitOrder(500);
});
