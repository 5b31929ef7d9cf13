import { describe, expect, test } from "vitest";
import { nextRunMs } from "./cronTime";
import type { Schedule } from "./cronTime";

const at = (text: string) => Date.parse(`${text}Z`);
const MINUTE = 60_000;

/** The run's minute without the offset that spreads jobs within it. */
function nextMinute(schedule: Schedule, after: string): string {
  const ms = nextRunMs("any", schedule, at(after), null);
  return new Date(Math.floor(ms / MINUTE) * MINUTE).toISOString().slice(0, 16);
}

describe("the next run of a schedule", () => {
  test.each<[Schedule, string, string]>([
    [{ type: "hourly", minuteUTC: 15 }, "2026-03-01T10:20:00", "2026-03-01T11:15"],
    [{ type: "daily", hourUTC: 3, minuteUTC: 30 }, "2026-12-31T04:00:00", "2027-01-01T03:30"],
    [
      { type: "weekly", dayOfWeek: "monday", hourUTC: 0, minuteUTC: 0 },
      "2026-11-21T12:00:00",
      "2026-11-23T00:00",
    ],
    [
      { type: "monthly", day: 31, hourUTC: 1, minuteUTC: 2 },
      "2026-02-01T00:00:00",
      "2026-03-31T01:02",
    ],
    [{ type: "cron", cron: "*/20 9-17 * * mon-fri" }, "2026-11-20T17:50:00", "2026-11-23T09:00"],
    [{ type: "cron", cron: "0 0 29 2 *" }, "2026-01-01T00:00:00", "2028-02-29T00:00"],
    [{ type: "cron", cron: "5,35 * * * *" }, "2026-01-01T00:06:59", "2026-01-01T00:35"],
    [{ type: "cron", cron: "0 12 13 * 5" }, "2026-11-01T00:00:00", "2026-11-06T12:00"],
    [{ type: "cron", cron: "0 0 * jan 7" }, "2026-11-01T00:00:00", "2027-01-03T00:00"],
  ])("%j after %s is %s", (schedule, after, expected) => {
    expect(nextMinute(schedule, after)).toBe(expected);
  });

  test("comes with a stable offset below a minute that differs between jobs", () => {
    const schedule: Schedule = { type: "hourly", minuteUTC: 0 };
    const offset = (name: string) =>
      nextRunMs(name, schedule, at("2026-01-01T00:00:00"), null) % MINUTE;
    const offsets = ["a", "b", "c", "d"].map(offset);
    expect(offsets).toEqual(["a", "b", "c", "d"].map(offset));
    expect(new Set(offsets).size).toBeGreaterThan(1);
  });

  test("is after the given time also when that lies within the offset", () => {
    const schedule: Schedule = { type: "daily", hourUTC: 5, minuteUTC: 0 };
    let ms = at("2026-01-01T00:00:00");
    for (let run = 0; run < 5; run++) {
      const next = nextRunMs("job", schedule, ms, ms);
      expect(next).toBeGreaterThan(ms);
      if (run > 0) expect(next - ms).toBe(24 * 60 * MINUTE);
      ms = next;
    }
  });

  test("of an interval keeps its beat and skips what was missed", () => {
    const schedule: Schedule = { type: "interval", seconds: 30 };
    expect(nextRunMs("i", schedule, 1_000, null)).toBe(1_000);
    expect(nextRunMs("i", schedule, 1_500, 1_000)).toBe(31_000);
    expect(nextRunMs("i", schedule, 31_000, 1_000)).toBe(61_000);
    expect(nextRunMs("i", schedule, 400_000, 1_000)).toBe(421_000);
  });

  test.each(["* * * *", "61 * * * *", "* * * * funday", "*/0 * * * *"])("%j is refused", (cron) => {
    expect(() => nextRunMs("x", { type: "cron", cron }, 0, null)).toThrow(/cron/);
  });
});
