import { beforeAll, expect, test } from "vitest";
import type { Definition } from "../../../scripts/bench/engine/app";
import { loadOurs } from "../../../scripts/bench/ours/index";
import { playHistories } from "./jobHistories";

let app: Definition;
beforeAll(async () => {
  app = await loadOurs(process.cwd());
});

test("jobs come to their end over any overlapping history, each once, and leave nothing behind", async () => {
  const { conflicts, reached } = await playHistories(app, 10);
  expect(conflicts).toBeGreaterThan(0);
  expect([...reached.keys()]).toEqual(
    expect.arrayContaining([
      "complete: true",
      "complete: false",
      "fail: requeued",
      "fail: dead_letter",
      "cancel: cancelling",
      "a worker that dies with its claim",
    ]),
  );
});
