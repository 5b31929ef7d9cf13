import { expect, test } from "vitest";
import { CallIds } from "./callIds";

const nth = (...values: number[]) => {
  let at = 0;
  return () => values[at++ % values.length] ?? 0;
};

test("the provider's id is kept where no other call has it", () => {
  const ids = new CallIds({ taken: ["a"], isAll: true, random: Math.random });
  expect(ids.take("b")).toBe("b");
  for (const taken of ["a", "b"]) expect(ids.take(taken)).toMatch(/^[A-Za-z0-9]{9}$/);
});

test("where not all ids of the thread are known, none of the provider's is kept", () => {
  const ids = new CallIds({ taken: [], isAll: false, random: Math.random });
  expect(ids.take("b")).toMatch(/^[A-Za-z0-9]{9}$/);
});

test("ids are unique whatever chance draws", () => {
  const ids = new CallIds({ taken: [], isAll: false, random: nth(0) });
  const made = Array.from({ length: 20 }, () => ids.take("a"));
  expect(new Set(made).size).toBe(20);
});
