import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { platformIo } from "./io";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("sleep ends after its time", async () => {
  let over = false;
  const slept = platformIo.sleep(1_000).then(() => {
    over = true;
  });
  await vi.advanceTimersByTimeAsync(999);
  expect(over).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  await slept;
});

test("sleep ends with its signal and leaves no timer behind", async () => {
  const stop = new AbortController();
  const slept = platformIo.sleep(1_000, stop.signal);
  expect(vi.getTimerCount()).toBe(1);
  stop.abort();
  await slept;
  expect(vi.getTimerCount()).toBe(0);
});

test("sleep with a signal that has aborted does not begin", async () => {
  await platformIo.sleep(1_000, AbortSignal.abort());
  expect(vi.getTimerCount()).toBe(0);
});
