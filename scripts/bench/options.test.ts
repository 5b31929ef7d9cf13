import { expect, test } from "vitest";
import { main } from "./index";
import { readOptions } from "./options";

const io = (errors: string[]) => ({
  projectDir: ".",
  print: () => undefined,
  printError: (line: string) => errors.push(line),
  processEnvironment: {},
  stopped: new Promise<void>(() => undefined),
});

test("without flags everything is measured, ten times", () => {
  const { only, part, seed, seeds, json } = readOptions([]);
  expect({ only, part, seed, seeds, json }).toEqual({
    only: null,
    part: null,
    seed: 1,
    seeds: 10,
    json: false,
  });
});

test("rows are named by their id or by one of their figures", () => {
  const { only, seed, json } = readOptions(["--only", "T1,T10b,T6.calls", "--seed", "7", "--json"]);
  expect([[...(only ?? [])], seed, json]).toEqual([["T1", "T10b", "T6.calls"], 7, true]);
});

test.each([
  [["--only", "T1,T99"], /^--only T1,T99: there is no row "T99"; known are T1, .*T10b, .*T19\.$/],
  [["--only", ""], /there is no row ""/],
  [["--only"], /^Option '--only <value>' argument missing\. See npm run bench -- --help\.$/],
  [["--seed", "abc"], /^--seed abc is no whole number from 0 to/],
  [["--seed", "-1"], /--seed/],
  [["--seeds", "0"], /^--seeds 0 is no whole number from 1 to/],
  [["--nonsense"], /^Unknown option '--nonsense'/],
  [["T1"], /^Unexpected argument 'T1'/],
])("%j is one line and exit code 2, and nothing is measured", async (argv, line) => {
  const errors: string[] = [];
  expect(await main(argv, io(errors))).toBe(2);
  expect(errors).toEqual([expect.stringMatching(line)]);
});
