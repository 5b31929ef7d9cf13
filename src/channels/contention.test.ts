import { describe, expect, test, vi } from "vitest";
import { AppError, errorData } from "../errors/appError";
import { throughContention } from "./contention";

describe("an admission lost to contention", () => {
  const attempt = async (admit: () => Promise<string>) => {
    const pausesMs: number[] = [];
    const sleep = async (ms: number): Promise<void> => void pausesMs.push(ms);
    try {
      return {
        outcome: await throughContention(admit, { io: { sleep, random: () => 0.5 } }),
        pausesMs,
      };
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

  test("goes without the limits that fail open on its last try, and not before", async () => {
    const io = { sleep: async () => undefined, random: () => 0 };
    const failOpen = ["global", "chat_address"];
    const told: string[][] = [];
    const after = (losses: number) => async (leaveOut: string[]) => {
      told.push(leaveOut);
      if (told.length <= losses) throw new AppError("rate_limit_unavailable");
      return "stored";
    };
    expect(await throughContention(after(2), { io, failOpen })).toBe("stored");
    expect(told).toEqual([[], [], failOpen]);
    told.length = 0;
    expect(await throughContention(after(1), { io, failOpen })).toBe("stored");
    expect(told).toEqual([[], []]);
    told.length = 0;
    await expect(throughContention(after(3), { io })).rejects.toThrow(AppError);
    expect(told).toEqual([[], [], []]);
  });

  test("for good is counted once, and refused the same where that fails", async () => {
    const io = { sleep: async () => undefined, random: () => 0 };
    const lost = vi.fn().mockResolvedValueOnce(null).mockRejectedValueOnce(new Error("a bug"));
    const admit = vi.fn().mockRejectedValue(new AppError("overloaded"));
    for (const times of [1, 2]) {
      await expect(throughContention(admit, { io, lost })).rejects.toThrow(AppError);
      expect(lost).toHaveBeenCalledTimes(times);
    }
    admit.mockReset().mockResolvedValue("stored");
    await throughContention(admit, { io, lost });
    expect(lost).toHaveBeenCalledTimes(2);
  });

  test("is told from what failed for another reason", async () => {
    const broken = vi.fn().mockRejectedValue(new Error("a bug"));
    expect(await attempt(broken)).toEqual({ outcome: "internal_error", pausesMs: [] });
  });
});
