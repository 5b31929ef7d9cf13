import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PROJECT, startFixture } from "./support";
import type { Fixture } from "./support";

const REALMS = path.join(PROJECT, "test/host/realms/convex");

/** What Convex's default runtime adds to the language's own globals. */
const PLATFORM = [
  "AbortController",
  "AbortSignal",
  "AsyncLocalStorage",
  "AsyncResource",
  "Blob",
  "Convex",
  "Crypto",
  "DOMException",
  "Event",
  "EventTarget",
  "File",
  "FormData",
  "Headers",
  "Performance",
  "PerformanceEntry",
  "PerformanceMark",
  "PerformanceMeasure",
  "ReadableStream",
  "ReadableStreamBYOBReader",
  "ReadableStreamDefaultReader",
  "Request",
  "Response",
  "SubtleCrypto",
  "TextDecoder",
  "TextDecoderStream",
  "TextEncoder",
  "TextEncoderStream",
  "TransformStream",
  "URL",
  "URLSearchParams",
  "WritableStream",
  "WritableStreamDefaultWriter",
  "atob",
  "btoa",
  "clearInterval",
  "clearTimeout",
  "console",
  "crypto",
  "fetch",
  "performance",
  "process",
  "self",
  "setInterval",
  "setTimeout",
  "structuredClone",
];

describe.each(["shared", "call"] as const)(
  "with isolation %s, the default runtime",
  (isolation) => {
    let host: Fixture;
    beforeAll(async () => {
      host = await startFixture({ functionsDir: REALMS, isolation });
    });
    afterAll(() => host.close());

    test("has the platform's globals and none of Node's", async () => {
      const { globals } = (await host.run("realms:report")) as { globals: string[] };
      const own = (name: string) => PLATFORM.includes(name);
      expect(globals.filter(own)).toEqual(PLATFORM);
      const language = await host.run("realms:languageGlobals");
      expect(globals.filter((name) => !own(name)).sort()).toEqual(language);
      for (const name of [
        "Buffer",
        "queueMicrotask",
        "navigator",
        "CompressionStream",
        "require",
        "setImmediate",
      ])
        expect(globals).not.toContain(name);
    });

    test("takes what host APIs hand in for its own", async () => {
      const { globals, ...checks } = (await host.run("realms:report")) as Record<string, unknown>;
      expect(globals).toBeInstanceOf(Array);
      const failed = Object.entries(checks).filter(([, passed]) => passed !== true);
      expect(failed).toEqual([]);
    });

    test("signs and verifies with jose", async () => {
      expect(await host.run("realms:signAndVerify")).toEqual([1, 2, "refused"]);
    });

    test("streams with openai and tells its errors apart", async () => {
      const server = createServer((request, response) => {
        if (!request.url?.endsWith("/chat/completions")) {
          response
            .writeHead(418, { "content-type": "application/json" })
            .end('{"error":{"message":"no"}}');
          return;
        }
        response.writeHead(200, { "content-type": "text/event-stream" });
        for (const content of ["Hel", "lo"])
          response.write(`data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`);
        response.end("data: [DONE]\n\n");
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      expect(await host.run("realms:complete", { baseURL })).toEqual({
        text: "Hello",
        refused: "status 418",
      });
      server.close();
    });

    test("keeps module state only as long as its isolation says", async () => {
      const counts = [await host.run("realms:count"), await host.run("realms:count")];
      expect(counts).toEqual(isolation === "shared" ? [1, 2] : [1, 1]);
    });
  },
);

test("the same seed gives the same randomness, another seed another", async () => {
  const drawn = async (first: number) => {
    let next = first;
    // A counter as a source of seeds: it repeats from start to start.
    const random = () => {
      next = (next * 16_807 + 11) % 2_147_483_647;
      return next / 2_147_483_647;
    };
    const host = await startFixture({ injection: { random, nowMs: () => 1_700_000_000_000 } });
    const {
      random: numbers,
      uuid,
      bytes,
    } = (await host.run("notes:clock")) as Record<string, unknown>;
    await host.close();
    return { numbers, uuid, bytes };
  };
  const [one, again, other] = [await drawn(7), await drawn(7), await drawn(8)];
  expect(again).toEqual(one);
  expect(other).not.toEqual(one);
});
