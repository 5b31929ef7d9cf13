import { existsSync, rmSync } from "node:fs";
import { expect, test } from "vitest";
import { STEPS } from "../../scripts/demo/steps";
import { run } from "./process";

test("the demo shows every step, on a server of its own", async () => {
  const shown = await run(["run", "scripts/demo.ts"]);
  for (const { title } of STEPS) expect(shown.stdout).toContain(title);
  expect(shown).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("Everything happened as told") as unknown,
    stderr: "",
  });
});

test("a step that does not happen ends the demo, is named, and keeps the data to look at", async () => {
  // Node applies it in the server's process, after the demo has set its variables.
  const never = "--import=data:text/javascript,process.env.CIRCUIT_SERPER_THRESHOLD=100";
  const { code, stdout, stderr } = await run(["run", "scripts/demo.ts"], { NODE_OPTIONS: never });
  expect(code).toBe(1);
  expect(stderr).toContain(`step 3, ${STEPS[2]?.title}: the circuit did not open`);
  expect(stdout).toContain(`3. ${STEPS[2]?.title}`);
  expect(stdout).not.toContain(`4. ${STEPS[3]?.title}`);
  const [, kept = ""] = /kept in (\S+)\./.exec(stderr) ?? [];
  expect(existsSync(kept)).toBe(true);
  rmSync(kept, { recursive: true });
});
