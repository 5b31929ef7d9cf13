import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorData } from "../errors/appError";
import { JSON_DEPTH_MAX, parseJson, readBytes } from "./bodies";

const codeOf = async (run: () => unknown): Promise<string> => {
  try {
    await run();
  } catch (error) {
    return errorData(error).code;
  }
  return "none";
};

describe("reading with a limit", () => {
  const LIMIT = 64;
  const chunkings = fc.array(fc.uint8Array({ maxLength: 40, size: "max" }), {
    maxLength: 8,
    size: "max",
  });

  test("keeps every byte up to the limit and none past it, however the body is cut", async () => {
    await fc.assert(
      fc.asyncProperty(chunkings, async (chunks) => {
        let pulled = 0;
        let cancelled = false;
        const body = new ReadableStream<Uint8Array>(
          {
            pull(controller) {
              const chunk = chunks[pulled];
              pulled += 1;
              if (chunk === undefined) controller.close();
              else controller.enqueue(chunk);
            },
            cancel() {
              cancelled = true;
            },
          },
          { highWaterMark: 0 },
        );
        const whole = chunks.flatMap((chunk) => [...chunk]);
        if (whole.length <= LIMIT) {
          expect([...(await readBytes(body, LIMIT))]).toEqual(whole);
          return;
        }
        expect(await codeOf(() => readBytes(body, LIMIT))).toBe("payload_too_large");
        // Nothing is pulled after the chunk that went over.
        let length = 0;
        const needed = chunks.findIndex((chunk) => (length += chunk.length) > LIMIT) + 1;
        expect([pulled, cancelled]).toEqual([needed, true]);
      }),
    );
  });

  test("no body is an empty one", async () => {
    expect((await readBytes(null, LIMIT)).length).toBe(0);
  });

  test("an endless body is left at the limit", async () => {
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(new Uint8Array(7));
      },
    });
    expect(await codeOf(() => readBytes(body, LIMIT))).toBe("payload_too_large");
  });
});

describe("JSON", () => {
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

  test("what we accept is exactly what the platform's parser makes of it", () => {
    const values = fc.jsonValue({ maxDepth: 8, noUnicodeString: false });
    fc.assert(
      fc.property(values, (value) => {
        const text = JSON.stringify(value);
        fc.pre(!text.includes("__proto__"));
        expect(parseJson(encode(text))).toEqual(JSON.parse(text));
      }),
    );
  });

  test("nesting to the bound passes, one deeper does not, in text it does not count", async () => {
    const nested = (depth: number): Uint8Array =>
      encode(`${'{"a":['.repeat(depth / 2)}"]}[{\\""${"]}".repeat(depth / 2)}`);
    expect(await codeOf(() => parseJson(nested(JSON_DEPTH_MAX)))).toBe("none");
    expect(await codeOf(() => parseJson(nested(JSON_DEPTH_MAX + 2)))).toBe("invalid_json");
  });

  test("any bytes are a value or invalid_json", async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array(), fc.string().map(encode)), async (bytes) => {
        expect(["none", "invalid_json"]).toContain(await codeOf(() => parseJson(bytes)));
      }),
    );
  });

  test("no object of ours ever gets another prototype from a body", async () => {
    for (const text of [
      '{"__proto__":1}',
      '{"a":[{"\\u005F_proto__":{}}]}',
      '{"\\u005f\\u005fproto__":0}',
    ])
      expect(await codeOf(() => parseJson(encode(text)))).toBe("invalid_json");
    expect(parseJson(encode('{"a":"__proto__"}'))).toEqual({ a: "__proto__" });
  });
});
