import { describe, expect, test, vi } from "vitest";
import { AppError, errorData } from "../errors/appError";
import { throughContention } from "./contention";

describe("an admission lost to contention", () => {
  const attempt = async (admit: () => Promise<string>) => {
    const pausesMs: number[] = [];
    const sleep = async (ms: number): Promise<void> => void pausesMs.push(ms);
    try {
      return { outcome: await throughContention(admit, { sleep, random: () => 0.5 }), pausesMs };
    } catch (error) {
      return { outcome: errorData(error).code, pausesMs };
    }
  };

  test("is tried again after a pause that grows, twice", async () => {
    const recovers = vi.fn().mockRejectedValueOnce(new AppError("overloaded"));
    recovers.mockResolvedValue("stored");
    expect(await attempt(recovers)).toEqual({ outcome: "stored", pausesMs: [500] });
    const lost = vi.fn().mockRejectedValue(new AppError("overloaded"));
    expect(await attempt(lost)).toEqual({ outcome: "overloaded", pausesMs: [500, 1_000] });
    expect(lost).toHaveBeenCalledTimes(3);
    const uncounted = vi.fn().mockRejectedValueOnce(new AppError("rate_limit_unavailable"));
    uncounted.mockResolvedValue("stored");
    expect(await attempt(uncounted)).toEqual({ outcome: "stored", pausesMs: [500] });
  });

  test("is told from what failed for another reason", async () => {
    const broken = vi.fn().mockRejectedValue(new Error("a bug"));
    expect(await attempt(broken)).toEqual({ outcome: "internal_error", pausesMs: [] });
  });
});
