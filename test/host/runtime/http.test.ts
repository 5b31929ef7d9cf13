import http from "node:http";
import net from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFixture, until } from "./support";
import type { Fixture } from "./support";

let host: Fixture;
beforeAll(async () => {
  host = await startFixture();
});
afterAll(() => host.close());

const notes = async () => (await host.run("notes:list")) as string[];

/** A raw connection to the site port, to be as slow or as rude as a client can be. */
async function connect(text: string): Promise<net.Socket> {
  const socket = net.connect(Number(new URL(host.siteUrl).port), "127.0.0.1");
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  socket.write(text);
  return socket;
}

const head = (line: string, ...headers: string[]) =>
  [`${line} HTTP/1.1`, "Host: site.test", ...headers, "", ""].join("\r\n");

/** Everything that comes until the connection ends or a pattern is seen. */
async function received(socket: net.Socket, pattern: RegExp): Promise<string> {
  let text = "";
  return new Promise((resolve) => {
    const done = () => {
      resolve(text);
    };
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (pattern.test(text)) done();
    });
    socket.on("error", done).on("close", done);
  });
}

describe("an HTTP action", () => {
  test("gets the body and the headers as they were sent", async () => {
    const bytes = Buffer.alloc(300_000, "any bytes");
    const response = await fetch(`${host.siteUrl}/echo`, { method: "POST", body: bytes });
    expect(response.headers.get("x-bytes")).toBe("300000");
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    const socket = await connect(head("GET /hello?a=%20b", "X-Doubled: 1", "X-Doubled: 2"));
    const text = await received(socket, /\}/);
    expect(text).toContain('"doubled":"1, 2"');
    expect(text).toContain('"url":"http://site.test/hello?a=%20b"');
    socket.destroy();
  });

  test("is found by path and method, HEAD by GET, and unrouted requests are answered as on the platform", async () => {
    const missing = await fetch(`${host.siteUrl}/nowhere`);
    expect([missing.status, await missing.text()]).toEqual([404, "No matching routes found"]);
    const asHead = await fetch(`${host.siteUrl}/hello`, { method: "HEAD" });
    expect([asHead.status, await asHead.text()]).toEqual([200, ""]);
  });

  test("that throws is a 500 with its trace", async () => {
    const response = await fetch(`${host.siteUrl}/throws`);
    expect(response.status).toBe(500);
    const body = (await response.json()) as { code: string; trace: string };
    expect(body.code).toMatch(
      /^\[Request ID: \w+\] Server Error: Uncaught Error: an http action failed/,
    );
    expect(body.trace).toContain("convex/http.ts:");
  });

  test("runs with a bad token, and only asking who it is throws", async () => {
    const ask = async (authorization?: string): Promise<unknown> =>
      (
        await fetch(
          `${host.siteUrl}/identity`,
          authorization === undefined ? {} : { headers: { authorization } },
        )
      ).json();
    expect(await ask()).toBeNull();
    expect(await ask("Basic abc")).toBeNull();
    expect(await ask("Bearer a.b.c")).toEqual({
      thrown: expect.stringContaining("Could not parse JWT payload") as unknown,
    });
  });

  test("does not believe a forwarded address unless a configured proxy sends it", async () => {
    const ask = async (from: Fixture): Promise<unknown> =>
      (
        await fetch(`${from.siteUrl}/hello`, { headers: { "x-forwarded-for": "6.6.6.6, 7.7.7.7" } })
      ).json();
    expect(await ask(host)).toMatchObject({ ip: "127.0.0.1" });
    const proxied = await startFixture({ trustedProxies: ["127.0.0.1"] });
    expect(await ask(proxied)).toMatchObject({ ip: "6.6.6.6" });
    await proxied.close();
  });
});

describe("a streamed answer", () => {
  test("arrives part by part, uncompressed", async () => {
    const response = await fetch(`${host.siteUrl}/stream?count=3&everyMs=150&tag=parts`, {
      headers: { "accept-encoding": "gzip" },
    });
    expect(response.headers.get("content-encoding")).toBeNull();
    const arrivals: number[] = [];
    let text = "";
    for await (const chunk of response.body ?? []) {
      arrivals.push(performance.now());
      text += Buffer.from(chunk).toString();
    }
    expect(text).toBe("1 ........2 ........3 ........");
    expect(arrivals.length).toBe(3);
    expect((arrivals[2] ?? 0) - (arrivals[0] ?? 0)).toBeGreaterThan(200);
  });

  test("runs to its end for a client that has gone, which it can see by the signal", async () => {
    const controller = new AbortController();
    const response = await fetch(`${host.siteUrl}/stream?count=5&everyMs=60&tag=left`, {
      signal: controller.signal,
    });
    await response.body?.getReader().read();
    controller.abort();
    const seen = await until(notes, (texts) => texts.includes("left done"));
    expect(seen).toEqual(expect.arrayContaining(["left aborted", "left done"]));
    expect(seen.indexOf("left aborted")).toBeLessThan(seen.indexOf("left done"));
  });

  test("is not slowed by a client that does not read", async () => {
    const socket = await connect(head("GET /stream?count=40&everyMs=1&bytes=262144&tag=slow"));
    socket.pause();
    expect(await until(notes, (texts) => texts.includes("slow done"))).toContain("slow done");
    const text = await received(socket.resume(), /\r\n0\r\n\r\n$/);
    expect(text.length).toBeGreaterThan(40 * 262_144);
    socket.destroy();
  });

  test("is cut at 20 MiB", async () => {
    const response = await fetch(
      `${host.siteUrl}/stream?count=30&everyMs=0&bytes=1048576&tag=long`,
    );
    await expect(response.arrayBuffer()).rejects.toThrow();
    expect(host.printed.join("\n")).toContain("larger than 20 MiB");
  });
});

describe("an answer before the body has come", () => {
  const chunk = `10000\r\n${"x".repeat(65_536)}\r\n`;

  test.each(["keep-alive", "close"])(
    "reaches a client that sends before it reads, then the connection ends (%s)",
    async (kind) => {
      const round = async () => {
        const headers = ["Transfer-Encoding: chunked", `Connection: ${kind}`];
        const socket = await connect(head("POST /refuse", ...headers) + chunk);
        socket.on("error", () => undefined);
        const sending = setInterval(() => socket.writable && socket.write(chunk), 25);
        await new Promise((resolve) => setTimeout(resolve, 150));
        const answer = received(socket, /too large/);
        const closed = new Promise((resolve) => socket.once("close", resolve));
        expect(await answer).toContain("413");
        await closed;
        clearInterval(sending);
      };
      await Promise.all(Array.from({ length: 8 }, round));
    },
  );

  test("leaves the connection usable when the rest of the body is small", async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = (path: string, body: string) =>
      new Promise<number>((resolve, reject) => {
        const request = http.request(
          `${host.siteUrl}${path}`,
          { method: "POST", agent },
          (response) => {
            response.resume().on("end", () => {
              resolve(response.statusCode ?? 0);
            });
          },
        );
        request.on("error", reject);
        request.end(body);
      });
    expect(await ask("/refuse", "x".repeat(100_000))).toBe(413);
    expect(await ask("/echo", "small")).toBe(200);
    agent.destroy();
  });

  test("is given up on after two seconds of silence", async () => {
    const socket = await connect(head("POST /refuse", "Content-Length: 1000000"));
    const start = performance.now();
    await received(socket, /never/);
    expect(performance.now() - start).toBeGreaterThan(1_500);
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

test("a body that breaks off fails the read, and nothing else", async () => {
  const socket = await connect(head("POST /echo", "Content-Length: 1000") + "part");
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.destroy();
  expect((await fetch(`${host.siteUrl}/hello`)).status).toBe(200);
});

describe("what nobody awaits", () => {
  test.each(["promise", "timer"])(
    "a failed %s fails its own run at once, and no other",
    async (how) => {
      const other = fetch(`${host.siteUrl}/stream?count=3&everyMs=50&tag=other-${how}`);
      const start = performance.now();
      await expect(host.run("notes:dangling", { how })).rejects.toThrow(
        /nobody (awaits|catches) me/,
      );
      expect(performance.now() - start).toBeLessThan(1_500);
      expect(await (await other).text()).toContain("3 ");
    },
  );
});
