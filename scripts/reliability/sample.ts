import * as z from "zod";

type Schema = Readonly<Record<string, unknown>>;

/** Texts that hardly any contract takes, and one of them is refused by each. */
const NO_BODIES = ["null", "[]", "7", '"x"', "{}"];

/**
 * The smallest value that a contract takes; with `whole`, one with every optional part. Null where
 * none could be made, such as behind a rule that a schema cannot say.
 */
export function sampleOf(contract: z.ZodType, { whole = false } = {}): unknown {
  const value = valueFor(z.toJSONSchema(contract, { io: "input" }), whole);
  return contract.safeParse(value).success ? value : null;
}

/** A JSON text that the contract refuses; null where it takes all of ours. */
export function refusedText(contract: z.ZodType): string | null {
  return NO_BODIES.find((text) => !contract.safeParse(JSON.parse(text)).success) ?? null;
}

function valueFor(schema: Schema, whole: boolean): unknown {
  if ("const" in schema) return schema["const"];
  if (Array.isArray(schema["enum"])) return schema["enum"][0];
  for (const choice of ["anyOf", "oneOf", "allOf"])
    if (Array.isArray(schema[choice])) return valueFor(schema[choice][0] as Schema, whole);
  switch (schema["type"]) {
    case "object":
      return objectFor(schema, whole);
    case "array":
      return Array.from({ length: count(schema["minItems"]) }, () =>
        valueFor((schema["items"] ?? {}) as Schema, whole),
      );
    case "integer":
    case "number":
      return count(schema["minimum"]);
    case "boolean":
      return false;
    case "null":
      return null;
    default:
      return "x".repeat(Math.max(1, count(schema["minLength"])));
  }
}

function objectFor(schema: Schema, whole: boolean): unknown {
  const properties = (schema["properties"] ?? {}) as Readonly<Record<string, Schema>>;
  const required = (schema["required"] ?? []) as readonly string[];
  const names = Object.keys(properties).filter((name) => whole || required.includes(name));
  return Object.fromEntries(names.map((name) => [name, valueFor(properties[name] ?? {}, whole)]));
}

const count = (value: unknown): number => (typeof value === "number" ? value : 0);
