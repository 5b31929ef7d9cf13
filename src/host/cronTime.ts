import { createHash } from "node:crypto";

/** A schedule as `crons.ts` exports it. */
export type Schedule =
  | {
      readonly type: "interval";
      readonly seconds?: number;
      readonly minutes?: number;
      readonly hours?: number;
    }
  | { readonly type: "hourly"; readonly minuteUTC?: number }
  | { readonly type: "daily"; readonly hourUTC: number; readonly minuteUTC?: number }
  | {
      readonly type: "weekly";
      readonly dayOfWeek: string;
      readonly hourUTC: number;
      readonly minuteUTC?: number;
    }
  | {
      readonly type: "monthly";
      readonly day: number;
      readonly hourUTC: number;
      readonly minuteUTC?: number;
    }
  | { readonly type: "cron"; readonly cron: string };

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
/** Eight years hold every combination of day and month, February 29 included. */
const DAYS_AHEAD_MAX = 8 * 366;
const WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/**
 * The first run after `afterMs`, in epoch milliseconds. An interval counts from `previousMs`, the
 * time its last run was due; the others get a small offset that depends only on the cron's name, so
 * that jobs of one schedule do not all start at once.
 */
export function nextRunMs(
  name: string,
  schedule: Schedule,
  afterMs: number,
  previousMs: number | null,
): number {
  if (schedule.type === "interval") {
    const period =
      (schedule.seconds ?? 0) * SECOND_MS +
      (schedule.minutes ?? 0) * MINUTE_MS +
      (schedule.hours ?? 0) * HOUR_MS;
    if (previousMs === null) return afterMs;
    return previousMs + Math.max(1, Math.floor((afterMs - previousMs) / period) + 1) * period;
  }
  const spread = createHash("sha256").update(name).digest().readUInt32BE(0);
  const offsetMs = (spread % 60) * SECOND_MS;
  const fields = fieldsOf(schedule, Math.floor(spread / 60) % 60);
  return firstMatch(fields, afterMs - offsetMs) + offsetMs;
}

interface Fields {
  readonly minutes: ReadonlySet<number>;
  readonly hours: ReadonlySet<number>;
  readonly days: ReadonlySet<number>;
  readonly months: ReadonlySet<number>;
  readonly weekdays: ReadonlySet<number>;
  /** As in every cron: when both are restricted, either one is enough. */
  readonly eitherDay: boolean;
}

function fieldsOf(schedule: Exclude<Schedule, { type: "interval" }>, anyMinute: number): Fields {
  switch (schedule.type) {
    case "hourly":
      return parseCron(`${schedule.minuteUTC ?? anyMinute} * * * *`);
    case "daily":
      return parseCron(`${schedule.minuteUTC ?? anyMinute} ${schedule.hourUTC} * * *`);
    case "weekly":
      return parseCron(
        `${schedule.minuteUTC ?? anyMinute} ${schedule.hourUTC} * * ${schedule.dayOfWeek.slice(0, 3)}`,
      );
    case "monthly":
      return parseCron(
        `${schedule.minuteUTC ?? anyMinute} ${schedule.hourUTC} ${schedule.day} * *`,
      );
    case "cron":
      return parseCron(schedule.cron);
  }
}

function parseCron(text: string): Fields {
  const [minute = "", hour = "", day = "", month = "", weekday = "", ...rest] = text
    .trim()
    .split(/\s+/);
  if (weekday === "" || rest.length > 0) throw new Error(`"${text}" is not a cron of five fields.`);
  const weekdays = parseField(weekday, 0, 7, WEEKDAYS);
  if (weekdays.has(7)) weekdays.add(0);
  return {
    minutes: parseField(minute, 0, 59),
    hours: parseField(hour, 0, 23),
    days: parseField(day, 1, 31),
    months: parseField(month, 1, 12, MONTHS),
    weekdays,
    eitherDay: !/^[*?]/.test(day) && !/^[*?]/.test(weekday),
  };
}

function parseField(
  text: string,
  min: number,
  max: number,
  names: readonly string[] = [],
): Set<number> {
  const values = new Set<number>();
  const number = (part: string): number => {
    const named = names.indexOf(part.toLowerCase());
    const value = named === -1 ? Number(part) : named + min;
    if (!Number.isInteger(value) || value < min || value > max)
      throw new Error(`"${text}" is not a field of a cron.`);
    return value;
  };
  for (const part of text.split(",")) {
    const [range = "", step] = part.split("/");
    const [from = "", to] = /^[*?]$/.test(range) ? [String(min), String(max)] : range.split("-");
    const first = number(from);
    const last = to !== undefined ? number(to) : step === undefined ? first : max;
    const by = step === undefined ? 1 : Number(step);
    if (!(by >= 1)) throw new Error(`"${text}" is not a field of a cron.`);
    for (let value = first; value <= last; value += by) values.add(value);
  }
  return values;
}

function firstMatch(fields: Fields, afterMs: number): number {
  let dayMs = Math.floor(afterMs / DAY_MS) * DAY_MS;
  for (let day = 0; day < DAYS_AHEAD_MAX; day++, dayMs += DAY_MS) {
    if (!dayMatches(fields, new Date(dayMs))) continue;
    for (const hour of [...fields.hours].sort((a, b) => a - b))
      for (const minute of [...fields.minutes].sort((a, b) => a - b)) {
        const at = dayMs + hour * HOUR_MS + minute * MINUTE_MS;
        if (at > afterMs) return at;
      }
  }
  throw new Error("The cron never runs.");
}

function dayMatches(fields: Fields, day: Date): boolean {
  if (!fields.months.has(day.getUTCMonth() + 1)) return false;
  const ofMonth = fields.days.has(day.getUTCDate());
  const ofWeek = fields.weekdays.has(day.getUTCDay());
  return fields.eitherDay ? ofMonth || ofWeek : ofMonth && ofWeek;
}
