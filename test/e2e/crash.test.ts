import { expect, test } from "vitest";
import { crashRound } from "./crash";
import { scratch } from "./process";

test("what was answered with 200 survives kill -9 under load, and is processed once", async () => {
  const { dir, remove } = scratch("crash");
  await crashRound(dir, { prefix: "short", acknowledgedMin: 60 });
  remove();
  expect.hasAssertions();
});
