import { defineApp } from "convex/server";
import { v } from "convex/values";
import { KNOB_NAMES, type KnobName } from "../src/config/knobs";

const text = v.optional(v.string());

/**
 * Every variable of the knob table, so that a deployment knows their names. All are optional texts:
 * what a value may be is the table's to say, and a wrong one must be reported, not refused, because
 * a deployment that cannot be deployed helps nobody.
 */
export default defineApp({
  env: Object.fromEntries(KNOB_NAMES.map((name) => [name, text])) as Record<KnobName, typeof text>,
});
