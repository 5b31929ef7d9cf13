/** Reading of a provider's row with an environment: the row names the knob, the knob the value. */
import type { Env } from "../config/env";
import { isSet, readKnob, readSecret } from "../config/read";
import { AppError } from "../errors/appError";
import type { ProviderRow, Setting } from "./table";

/** The number a setting stands for. */
export function readSetting(env: Env, setting: Setting): number {
  if ("value" in setting) return setting.value;
  const { common, knob } = setting;
  const isCommon = common !== undefined && !isSet(env, knob) && isSet(env, common);
  return readKnob(env, isCommon ? common : knob);
}

/** A provider's base URL, without the slash at its end; the usual one where none is named. */
export function readBaseUrl(env: Env, row: ProviderRow, knob = row.baseUrlKnobs[0]): string {
  if (knob === undefined || !row.baseUrlKnobs.includes(knob))
    throw new AppError("internal_error", { detail: `${row.title} has no such address.` });
  return readKnob(env, knob).replace(/\/+$/, "");
}

/** The secrets a provider needs, in the order of its row. A missing one is `misconfigured`. */
export function readSecrets(env: Env, row: ProviderRow): readonly string[] {
  return row.secretKnobs.map((name) => readSecret(env, name));
}
