import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Permits } from "./permits";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Takes permits and notes who got one, in order. */
function takers(permits: Permits) {
  const got: string[] = [];
  const take = async (name: string): Promise<() => void> => {
    const giveBack = await permits.take();
    got.push(name);
    return giveBack;
  };
  return { got, take };
}

test("so many go at once, the others in the order in which they came", async () => {
  const { got, take } = takers(new Permits(2));
  const [first] = await Promise.all([take("a"), take("b")]);
  void take("c");
  void take("d");
  await vi.advanceTimersByTimeAsync(1_000);
  expect(got).toEqual(["a", "b"]);
  first();
  first();
  await vi.advanceTimersByTimeAsync(0);
  expect(got).toEqual(["a", "b", "c"]);
});

test("one who hangs keeps the others out for twenty seconds, and its permit is one permit", async () => {
  const { got, take } = takers(new Permits(1));
  const hung = await take("hung");
  const second = take("b");
  await vi.advanceTimersByTimeAsync(19_999);
  expect(got).toEqual(["hung"]);
  await vi.advanceTimersByTimeAsync(1);
  expect(got).toEqual(["hung", "b"]);
  hung();
  void take("c");
  await vi.advanceTimersByTimeAsync(0);
  expect(got).toEqual(["hung", "b"]);
  (await second)();
  await vi.advanceTimersByTimeAsync(0);
  expect(got).toEqual(["hung", "b", "c"]);
});
