import { test } from "vitest";
import { equalsCommitOrder } from "./serializability";

test("concurrent transactions give what they give in commit order, one at a time", async () => {
  await equalsCommitOrder(20);
});
