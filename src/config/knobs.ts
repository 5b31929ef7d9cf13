/**
 * Every variable that the deployment reads, once: the loader, `.env.example`, the documentation,
 * the snapshot and the declarations to Convex all come from here. Data only.
 */
import { PRODUCT_KNOBS } from "./productKnobs";
import { RELIABILITY_KNOBS } from "./reliabilityKnobs";
import type { EnumKnob, IntKnob, KnobRow, ListKnob, SecretKnob } from "./rows";

export type { KnobRow } from "./rows";

const KNOBS = { ...PRODUCT_KNOBS, ...RELIABILITY_KNOBS } satisfies Record<string, KnobRow>;

type Knobs = typeof KNOBS;

export type KnobName = keyof Knobs;

/** Names of one kind of row. */
type NamesOf<Row> = { [Name in KnobName]: Knobs[Name] extends Row ? Name : never }[KnobName];

export type SecretName = NamesOf<SecretKnob>;
/** Names that `readKnob` answers: all but secrets. */
export type SettingName = Exclude<KnobName, SecretName>;
/** Names whose value is a number. */
export type NumberKnob = NamesOf<IntKnob>;
/** Names whose value is a text. */
export type TextKnobName = Exclude<SettingName, NumberKnob | NamesOf<ListKnob>>;

/** The type of a knob's value. */
export type KnobValue<Name extends SettingName> = Knobs[Name] extends IntKnob
  ? number
  : Knobs[Name] extends EnumKnob<infer Option>
    ? Option
    : Knobs[Name] extends ListKnob
      ? readonly string[]
      : string;

export const KNOB_NAMES = Object.keys(KNOBS) as readonly KnobName[];

/** The row of a knob, typed as any row. */
export function knobRow(name: KnobName): KnobRow {
  return KNOBS[name];
}
