/** Reading of a provider's row with an environment: the row names the knob, the knob the value. */
import type { Env } from "../config/env";
import { readKnob, readSecret } from "../config/read";
import { AppError } from "../errors/appError";
import type { ProviderRow, Setting } from "./table";

/** The number a setting stands for. */
export function readSetting(env: Env, setting: Setting): number {
  if ("value" in setting) return setting.value;
  const value = readKnob(env, setting.knob);
  // A row that names a knob of another kind is a slip in the tables, which a test excludes.
  if (typeof value !== "number") throw new AppError("internal_error");
  return value;
}

/** A provider's base URL, without the slash at its end. */
export function readBaseUrl(env: Env, row: ProviderRow): string {
  const value = row.baseUrlKnob === null ? null : readKnob(env, row.baseUrlKnob);
  if (typeof value !== "string" || value === "")
    throw new AppError("misconfigured", { detail: `${row.title} has no address.` });
  return value.replace(/\/+$/, "");
}

/** The secrets a provider needs, in the order of its row. A missing one is `misconfigured`. */
export function readSecrets(env: Env, row: ProviderRow): readonly string[] {
  return row.secretKnobs.map((name) => readSecret(env, name));
}
