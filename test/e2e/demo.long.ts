import { expect, test } from "vitest";
import { STEPS } from "../../scripts/demo/steps";
import { run } from "./process";

test("the demo shows every step, on a server of its own, and says when one does not happen", async () => {
  const shown = await run(["run", "scripts/demo.ts"]);
  for (const { title } of STEPS) expect(shown.stdout).toContain(title);
  expect(shown).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("Everything happened as told") as unknown,
    stderr: "",
  });
});
