import { errorSpec, errorTypeUri } from "../../src/errors/table";
import { record } from "../../src/sim/json";
import type { Answer } from "./exchange";
import type { Expected } from "./probeParts";

/** Each way in which an answer is not what it must be; empty for a sound one. */
export function examine(
  answer: Answer,
  expected: Expected,
  { requestId, method }: { readonly requestId: string; readonly method: string },
): readonly string[] {
  const { status, headers, text } = answer;
  const wrong: string[] = [];
  if (!expected.statuses.includes(status))
    wrong.push(`status ${status}, not ${expected.statuses.join(" or ")}`);
  for (const [name, value] of Object.entries(expected.headers))
    wrong.push(...headerFault(name, headers[name], value));
  // What every answer of the deployment carries.
  wrong.push(...headerFault("x-request-id", headers["x-request-id"], requestId));
  wrong.push(...headerFault("traceparent", headers["traceparent"], /^00-[0-9a-f]{32}-/));
  wrong.push(
    ...headerFault("x-content-type-options", headers["x-content-type-options"], "nosniff"),
  );
  if (expected.code !== null) wrong.push(...problemFaults(answer, expected.code, method));
  if (expected.contract !== null && !expected.contract.safeParse(parsed(text)).success)
    wrong.push("the body breaks its contract");
  if (expected.text !== null && text !== expected.text)
    wrong.push(`body ${shown(text)}, not ${shown(expected.text)}`);
  return wrong;
}

function headerFault(
  name: string,
  actual: string | undefined,
  wanted: string | RegExp | null,
): readonly string[] {
  if (wanted === null) return actual === undefined ? [] : [`${name} is there: ${shown(actual)}`];
  if (actual === undefined) return [`${name} is missing`];
  const fits = typeof wanted === "string" ? actual === wanted : wanted.test(actual);
  return fits ? [] : [`${name} is ${shown(actual)}, not ${String(wanted)}`];
}

/** A problem's parts must agree with each other and with its row of the error table. */
function problemFaults(
  { status, headers, text }: Answer,
  code: Parameters<typeof errorSpec>[0],
  method: string,
): readonly string[] {
  const wrong: string[] = [
    ...headerFault("x-error-code", headers["x-error-code"], code),
    ...headerFault("content-type", headers["content-type"], "application/problem+json"),
    ...headerFault("cache-control", headers["cache-control"], "no-store"),
  ];
  const { retryable, title } = errorSpec(code);
  if (retryable && (status === 429 || status === 503))
    wrong.push(...headerFault("retry-after", headers["retry-after"], /^[1-9]\d{0,4}$/));
  if (method === "HEAD") return wrong;
  const problem = record(parsed(text));
  const wanted = { type: errorTypeUri(code), title, status, code, retryable };
  for (const [name, value] of Object.entries(wanted))
    if (problem[name] !== value)
      wrong.push(`${name} of the problem is ${shown(problem[name])}, not ${shown(value)}`);
  if (problem["requestId"] !== headers["x-request-id"])
    wrong.push("the problem names another request id than the header");
  return wrong;
}

const SHOWN_LENGTH_MAX = 80;

function shown(value: unknown): string {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
