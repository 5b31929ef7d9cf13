import { expect, test } from "vitest";
import { CallIds } from "./callIds";

const nth = (...values: number[]) => {
  let at = 0;
  return () => values[at++ % values.length] ?? 0;
};

test("the provider's id is kept where no other call has it", () => {
  const ids = new CallIds({ taken: ["a"], isAll: true, random: Math.random });
  expect(ids.take("b")).toEqual({ id: "b", sentId: "b" });
  for (const taken of ["a", "b"]) {
    const { id, sentId } = ids.take(taken);
    expect(id).toMatch(/^[A-Za-z0-9]{9}$/);
    expect(sentId).toBe(id);
  }
});

test("where not all ids of the thread are known, none of the provider's is shown", () => {
  const ids = new CallIds({ taken: [], isAll: false, random: Math.random });
  const { id, sentId } = ids.take("b");
  expect(id).toMatch(/^[A-Za-z0-9]{9}$/);
  // Its provider may know it by that alone.
  expect(sentId).toBe("b");
});

test("an id that is long because it carries something goes back, and is shown to none", () => {
  const ids = new CallIds({ taken: [], isAll: true, random: Math.random });
  const long = `call_${"x".repeat(900)}`;
  const { id, sentId } = ids.take(long);
  expect([id.length, sentId]).toEqual([9, long]);
});

test("ids are unique whatever chance draws", () => {
  const ids = new CallIds({ taken: [], isAll: false, random: nth(0) });
  const made = Array.from({ length: 20 }, () => ids.take("a").id);
  expect(new Set(made).size).toBe(20);
});
