import { compareValues, jsonToConvex, type JSONValue, type Value } from "convex/values";
import { fieldAt, isArray, isObject, type Json, type JsonObject } from "./json";

type Operand = Value | undefined;
type Evaluate = (document: JsonObject) => Operand;

const COMPARISONS: Record<string, (order: number) => boolean> = {
  $eq: (order) => order === 0,
  $neq: (order) => order !== 0,
  $lt: (order) => order < 0,
  $lte: (order) => order <= 0,
  $gt: (order) => order > 0,
  $gte: (order) => order >= 0,
};

interface Arithmetic {
  readonly verb: string;
  readonly floats: (l: number, r: number) => number;
  readonly integers: (l: bigint, r: bigint) => bigint;
}

const ARITHMETIC: Record<string, Arithmetic> = {
  $add: { verb: "add", floats: (l, r) => l + r, integers: (l, r) => l + r },
  $sub: { verb: "subtract", floats: (l, r) => l - r, integers: (l, r) => l - r },
  $mul: { verb: "multiply", floats: (l, r) => l * r, integers: (l, r) => l * r },
  $div: { verb: "divide", floats: (l, r) => l / r, integers: (l, r) => l / r },
  $mod: { verb: "mod", floats: (l, r) => l % r, integers: (l, r) => l % r },
};

/** Turns a serialized filter expression into a function of the document. */
function compileExpression(json: Json): Evaluate {
  if (!isObject(json)) throw new Error(`Invalid filter expression: ${JSON.stringify(json)}`);
  const [operator = "", operand = null] = Object.entries(json)[0] ?? [];
  const comparison = COMPARISONS[operator];
  if (comparison !== undefined) {
    const [left, right] = pair(operand);
    return (document) => comparison(compareValues(left(document), right(document)));
  }
  const arithmetic = ARITHMETIC[operator];
  if (arithmetic !== undefined) {
    const [left, right] = pair(operand);
    return (document) => calculate(arithmetic, left(document), right(document));
  }
  switch (operator) {
    case "$and":
    case "$or":
      return compileLogic(operator, operand);
    case "$not": {
      const inner = compileExpression(operand);
      return (document) => !toBoolean(inner(document));
    }
    case "$neg": {
      const inner = compileExpression(operand);
      return (document) => negate(inner(document));
    }
    case "$field": {
      const path = typeof operand === "string" ? operand.split(".") : [];
      return (document) => toValue(fieldAt(document, path));
    }
    case "$literal": {
      const literal = toValue(operand);
      return () => literal;
    }
    default:
      throw new Error(`Unknown operator ${operator} in a filter expression.`);
  }
}

/** Compiles a filter: an expression that must give a boolean. */
export function compileFilter(json: Json): (document: JsonObject) => boolean {
  const evaluate = compileExpression(json);
  return (document) => toBoolean(evaluate(document));
}

function compileLogic(operator: "$and" | "$or", operand: Json): Evaluate {
  const parts = (isArray(operand) ? operand : []).map(compileExpression);
  return operator === "$and"
    ? (document) => parts.every((part) => toBoolean(part(document)))
    : (document) => parts.some((part) => toBoolean(part(document)));
}

function pair(operand: Json): [Evaluate, Evaluate] {
  const [left = null, right = null] = isArray(operand) ? operand : [];
  return [compileExpression(left), compileExpression(right)];
}

function calculate({ verb, floats, integers }: Arithmetic, left: Operand, right: Operand): Value {
  if (typeof left === "number" && typeof right === "number") return floats(left, right);
  if (typeof left !== "bigint" || typeof right !== "bigint") {
    throw new Error(
      `Cannot ${verb} ${show(left)} (type ${typeName(left)}) and ${show(right)} (type ${typeName(right)})`,
    );
  }
  if (right === 0n && (verb === "divide" || verb === "mod")) {
    throw new Error(`Cannot ${verb} ${left.toString()} by zero`);
  }
  const result = integers(left, right);
  if (BigInt.asIntN(64, result) !== result) {
    throw new Error(
      `Cannot ${verb} ${left.toString()} and ${right.toString()}: the result is out of range for Int64`,
    );
  }
  return result;
}

function negate(value: Operand): Value {
  if (typeof value === "number") return -value;
  if (typeof value === "bigint" && BigInt.asIntN(64, -value) === -value) return -value;
  throw new Error(`Cannot negate ${show(value)} (type ${typeName(value)})`);
}

function toBoolean(value: Operand): boolean {
  if (typeof value === "boolean") return value;
  throw new Error(`Cannot use value ${show(value)} (type ${typeName(value)}) as a Boolean`);
}

function toValue(json: Json | undefined): Operand {
  if (json === undefined || (isObject(json) && "$undefined" in json)) return undefined;
  return jsonToConvex(json as JSONValue);
}

function typeName(value: Operand): string {
  if (value === undefined) return "Undefined";
  if (value === null) return "Null";
  if (Array.isArray(value)) return "Array";
  if (value instanceof ArrayBuffer) return "Bytes";
  if (typeof value === "bigint") return "Int64";
  if (typeof value === "number") return "Float64";
  return typeof value === "boolean" ? "Boolean" : typeof value === "string" ? "String" : "Object";
}

function show(value: Operand): string {
  if (typeof value === "bigint") return value.toString();
  return value === undefined ? "undefined" : JSON.stringify(value);
}
