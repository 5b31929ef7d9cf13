import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startSimulators, type Simulators } from "./index";

let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators();
});
afterAll(() => sim.close());

describe("Serper", () => {
  const search = (body: unknown, key = env("SERPER_API_KEY")) =>
    fetch(`${env("SERPER_BASE_URL")}/search`, {
      method: "POST",
      headers: { "x-api-key": key, "content-type": "application/json" },
      body: JSON.stringify(body),
    });

  test("results have titles, links, snippets and positions, the same for the same query", async () => {
    const first = await (await search({ q: "ballast", num: 3, gl: "us" })).text();
    expect(JSON.parse(first)).toMatchObject({
      searchParameters: { q: "ballast", gl: "us", num: 3, type: "search", engine: "google" },
      organic: [{ position: 1 }, { position: 2 }, { position: 3 }],
      credits: 1,
    });
    expect(await (await search({ q: "ballast", num: 3, gl: "us" })).text()).toBe(first);
    expect(await (await search({ q: "keel", num: 3, gl: "us" })).text()).not.toBe(first);
  });

  test("nothing found, no query, a wrong key", async () => {
    expect(await (await search({ q: "[[none]]" })).json()).toMatchObject({ organic: [] });
    expect((await search({})).status).toBe(400);
    const refused = await search({ q: "x" }, "wrong");
    expect(refused.status).toBe(403);
    expect(await refused.json()).toEqual({ message: "Unauthorized.", statusCode: 403 });
  });
});
