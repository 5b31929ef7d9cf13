import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { KNOB_NAMES } from "../config/knobs";
import { configWarnings } from "../config/read";
import { startSimulators, SIMULATED_PROVIDERS, type Simulators } from "./index";
import { parseJson, record } from "./json";

let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators();
});
afterAll(() => sim.close());
beforeEach(() => post("/control/reset", {}));

function post(path: string, body: unknown, headers: Record<string, string> = {}) {
  return fetch(sim.url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

async function fault(provider: string, fields: object): Promise<void> {
  const response = await post("/control/fault", { provider, ...fields });
  expect(response.status).toBe(200);
}

function search(q = "ballast", signal?: AbortSignal) {
  return fetch(`${env("SERPER_BASE_URL")}/search`, {
    method: "POST",
    headers: { "x-api-key": env("SERPER_API_KEY"), "content-type": "application/json" },
    body: JSON.stringify({ q }),
    ...(signal === undefined ? {} : { signal }),
  });
}

function chat(prompt: string) {
  return fetch(`${env("OPENROUTER_BASE_URL")}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${env("OPENROUTER_API_KEY")}` },
    body: JSON.stringify({
      model: "a/b",
      stream: true,
      messages: [{ role: "user", content: prompt }],
    }),
  });
}

async function state() {
  return record(await (await fetch(`${sim.url}/control/state`)).json());
}

describe("faults", () => {
  test("a status is answered in the provider's shape, with Retry-After where it sends one", async () => {
    await fault("serper", { status: 429, retryAfterSeconds: 7 });
    const refused = await search();
    expect(refused.status).toBe(429);
    expect(refused.headers.get("retry-after")).toBe("7");
    expect(await refused.json()).toEqual({ message: "Rate limit exceeded", statusCode: 429 });
    await fault("openrouter", { status: 503 });
    expect(await (await chat("x")).json()).toMatchObject({ error: { code: 503 } });
  });

  test("times limits it, an empty fault lifts it, one provider's fault is not another's", async () => {
    await fault("serper", { status: 500, times: 2 });
    const statuses = [await search(), await search(), await search()].map((one) => one.status);
    expect(statuses).toEqual([500, 500, 200]);
    await fault("serper", { status: 500 });
    expect((await chat("x")).status).toBe(200);
    await fault("serper", {});
    expect((await search()).status).toBe(200);
  });

  test("an error rate is exact and evenly spread", async () => {
    await fault("serper", { errorRate: 0.25 });
    const statuses: number[] = [];
    for (let index = 0; index < 8; index += 1) statuses.push((await search()).status);
    expect(statuses).toEqual([200, 200, 200, 503, 200, 200, 200, 503]);
  });

  test("cut ends the connection after exactly so many body bytes", async () => {
    const whole = await (await chat("cut me")).arrayBuffer();
    for (const bytes of [0, 1, 100, whole.byteLength - 1]) {
      await fault("openrouter", { cutAfterBytes: bytes });
      const response = await chat("cut me");
      expect(response.status).toBe(200);
      expect(await received(response)).toBe(bytes);
    }
  });

  test("a cut of a whole answer also comes after exactly so many body bytes", async () => {
    const whole = await (await search()).arrayBuffer();
    for (const bytes of [0, 1, 100, whole.byteLength - 1]) {
      await fault("serper", { cutAfterBytes: bytes });
      const response = await search();
      expect(response.status).toBe(200);
      expect(await received(response)).toBe(bytes);
    }
  });

  async function received(response: Response): Promise<number> {
    let bytes = 0;
    try {
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>)
        bytes += chunk.length;
    } catch {
      // The cut is what is measured.
      return bytes;
    }
    return -1;
  }

  test("a cut also ends a whole answer, and a malformed one is no JSON", async () => {
    await fault("serper", { cutAfterBytes: 10 });
    await expect((await search()).json()).rejects.toThrow();
    await fault("serper", { malformedFrame: true });
    const half = await (await search()).text();
    expect(half.length).toBeGreaterThan(0);
    expect(parseJson(half)).toBeUndefined();
  });

  test("a malformed frame stands between good ones", async () => {
    await fault("openrouter", { malformedFrame: true });
    const frames = (await (await chat("x")).text()).split("\n\n");
    const bad = frames.findIndex(
      (frame) => frame.startsWith("data: {") && parseJson(frame.slice(6)) === undefined,
    );
    expect(bad).toBeGreaterThan(1);
    expect(frames.at(-2)).toBe("data: [DONE]");
  });

  test("hang never answers, hang-after stops in the middle, and both free the server to close", async () => {
    await fault("serper", { hang: true, times: 1 });
    const gone = new AbortController();
    const waiting = search("x", gone.signal);
    await until(async () => requests(await state(), "serper") === 1);
    gone.abort();
    await expect(waiting).rejects.toThrow();
    await fault("openrouter", { hangAfterBytes: 40 });
    const reader = (await chat("x")).body?.getReader();
    expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
    await reader?.cancel();
    await until(async () => {
      const recent = (await state())["recent"] as unknown[];
      return record(recent.at(-1))["aborted"] === true;
    });
  });

  async function until(holds: () => Promise<boolean>): Promise<void> {
    while (!(await holds())) await new Promise((resolve) => setImmediate(resolve));
  }

  test("a disconnect gives no answer at all, and a body replaces the provider's", async () => {
    await fault("serper", { disconnect: true });
    await expect(search()).rejects.toThrow();
    await fault("serper", { status: 502, body: "<html>Bad Gateway</html>" });
    expect(await (await search()).text()).toBe("<html>Bad Gateway</html>");
    await fault("serper", { body: { organic: [] } });
    expect(await (await search()).json()).toEqual({ organic: [] });
  });

  test("latency delays the answer", async () => {
    await fault("serper", { latencyMs: 60_000, times: 1 });
    const gone = new AbortController();
    const slow = search("x", gone.signal);
    await until(async () => requests(await state(), "serper") === 1);
    expect((await search("y")).status).toBe(200);
    expect((await state())["recent"]).toMatchObject([{ status: null }, { status: 200 }]);
    gone.abort();
    await expect(slow).rejects.toThrow();
    await fault("serper", { latencyMs: 1 });
    expect((await search()).status).toBe(200);
  });

  test("a path narrows a fault", async () => {
    await fault("openrouter", { status: 500, path: "/models" });
    expect((await chat("x")).status).toBe(200);
    expect((await fetch(`${env("OPENROUTER_BASE_URL")}/models`)).status).toBe(500);
  });
});

describe("control", () => {
  test("unknown providers, fields and values are refused by name", async () => {
    for (const [body, named] of [
      [{ provider: "nobody" }, "nobody"],
      [{ provider: "serper", latencyMS: 5 }, "latencyMS"],
      [{ provider: "serper", latencyMs: -1 }, "latencyMs"],
      [{ provider: "serper", errorRate: 2 }, "errorRate"],
      [{ provider: "serper", hang: "yes" }, "hang"],
      [{ provider: "serper", status: 99 }, "status"],
      [{ provider: "serper", path: 1 }, "path"],
    ] as const) {
      const response = await post("/control/fault", body);
      expect(response.status).toBe(400);
      expect(record(await response.json())["error"]).toContain(named);
    }
  });

  test("a page in a browser and another host name are refused", async () => {
    expect((await post("/control/reset", {}, { origin: "http://evil.example" })).status).toBe(403);
    expect((await post("/control/fault", {}, { "content-type": "text/plain" })).status).toBe(403);
    expect((await fetch(`${sim.url}/control/nothing`)).status).toBe(404);
    const { request } = await import("node:http");
    const status = await new Promise((resolve, reject) => {
      request(`${sim.url}/control/state`, { headers: { host: "evil.example" } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    expect(status).toBe(403);
  });

  test("nothing listens beyond loopback", async () => {
    const elsewhere = sim.url.replace("127.0.0.1", "127.0.0.2");
    await expect(fetch(`${elsewhere}/control/state`)).rejects.toThrow();
  });

  test("state counts requests and shows no keys; reset forgets everything", async () => {
    await fault("serper", { status: 500 });
    await search();
    const seen = await state();
    expect(requests(seen, "serper")).toBe(1);
    expect(seen["recent"]).toMatchObject([
      { provider: "serper", method: "POST", path: "/serper/search", status: 500, aborted: false },
    ]);
    expect(JSON.stringify(seen)).not.toContain("sim-");
    await post("/control/reset", {});
    expect(requests(await state(), "serper")).toBe(0);
    expect((await search()).status).toBe(200);
  });

  test("every provider's variables are set and its keys are among them", () => {
    const names = SIMULATED_PROVIDERS.flatMap((provider) => provider.envNames);
    expect(names.sort()).toEqual(Object.keys(sim.env).sort());
    for (const name of SIMULATED_PROVIDERS.flatMap((provider) => provider.keyNames))
      expect(names).toContain(name);
    for (const value of Object.values(sim.env)) expect(value).not.toBe("");
    // The app reads exactly these names, and every value has the form that it asks for.
    expect(KNOB_NAMES).toEqual(expect.arrayContaining(names));
    expect(configWarnings(sim.env).filter(({ name }) => names.includes(name))).toEqual([]);
  });
});

function requests(seen: Readonly<Record<string, unknown>>, provider: string): unknown {
  return record(record(seen["providers"])[provider])["requests"];
}
