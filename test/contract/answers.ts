/** What answers must be, by the description that the deployment itself serves. */
import { expect } from "vitest";
import * as z from "zod";
import { type ErrorCode, errorSpec } from "../../src/errors/table";
import type { RouteId } from "../../src/http/routes";
import { problemOf, refusal, type WireAnswer } from "../e2e/wire";

interface Response {
  readonly headers?: Readonly<Record<string, unknown>>;
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
}

interface Operation {
  readonly operationId: string;
  readonly responses: Readonly<Record<string, Response>>;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> };
}

export interface Description {
  /** Expects an answer that is described, with the body that the description promises. */
  readonly expectDescribed: (id: RouteId, answer: WireAnswer) => Response;
  /** Expects a refusal with everything that its code entails. */
  readonly expectRefused: (id: RouteId, answer: WireAnswer, code: ErrorCode) => void;
}

/** Reads the OpenAPI document that a deployment serves. */
export function description(text: string): Description {
  const { components, paths } = JSON.parse(text) as Document;
  const problem = JSON.stringify(components.schemas["Problem"]);
  const inlined = JSON.parse(
    JSON.stringify(paths).replaceAll('{"$ref":"#/components/schemas/Problem"}', problem),
  ) as Document["paths"];
  const operations = new Map(
    Object.values(inlined)
      .flatMap((methods) => Object.values(methods))
      .map((operation) => [operation.operationId, operation]),
  );

  function expectDescribed(id: RouteId, { headers, status, text }: WireAnswer): Response {
    const described = operations.get(id)?.responses[String(status)];
    if (described === undefined) throw new Error(`${id} answers ${status}, undescribed: ${text}`);
    const [type = ""] = (headers["content-type"] ?? "").split(";");
    const { [type]: content, ...others } = described.content ?? {};
    expect([type, Object.keys(others)]).toEqual([type, []]);
    if (content === undefined) expect([type, text]).toEqual(["", ""]);
    else expectBody(content.schema, type.endsWith("json") ? JSON.parse(text) : text);
    expect(headers["x-request-id"]).toMatch(/^[0-9a-f]{32}$/);
    expect(headers["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(headers["x-content-type-options"]).toBe("nosniff");
    return described;
  }

  function expectRefused(id: RouteId, answer: WireAnswer, code: ErrorCode): void {
    const { retryable, status, title } = errorSpec(code);
    expect(refusal(answer)).toEqual([status, code]);
    const described = expectDescribed(id, answer);
    expect(problemOf(answer)).toMatchObject({ retryable, status, title });
    const { headers } = answer;
    if (retryable && (status === 429 || status === 503)) {
      expect(Object.keys(described.headers ?? {})).toContain("Retry-After");
      expect(headers["retry-after"]).toMatch(/^[1-9]\d*$/);
    }
    expect(headers["allow"] !== undefined).toBe(code === "method_not_allowed");
    expect(headers["www-authenticate"] !== undefined).toBe(code === "unauthorized");
  }

  return { expectDescribed, expectRefused };
}

type JsonSchema = Parameters<typeof z.fromJSONSchema>[0];

function expectBody(schema: object, body: unknown): void {
  const parsed = z.fromJSONSchema(schema as JsonSchema).safeParse(body);
  expect(parsed.error?.issues ?? []).toEqual([]);
}
