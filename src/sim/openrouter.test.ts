import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startSimulators, type Simulators } from "./index";
import { parseJson, record, text } from "./json";

let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators();
});
afterAll(() => sim.close());
beforeEach(async () => {
  await fetch(`${sim.url}/control/reset`, { method: "POST" });
});

const SEARCH = {
  type: "function",
  function: { name: "search_web", parameters: { type: "object" } },
} as const;
const TIME = {
  type: "function",
  function: { name: "get_current_time", parameters: { type: "object" } },
} as const;

function ask(prompt: string, more: object = {}, key = env("OPENROUTER_API_KEY")) {
  return fetch(`${env("OPENROUTER_BASE_URL")}/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({
      model: "openai/gpt-4o-mini",
      messages: [{ role: "user", content: prompt }],
      stream: true,
      stream_options: { include_usage: true },
      ...more,
    }),
  });
}

async function askText(prompt: string, more: object = {}): Promise<string> {
  return (await ask(prompt, more)).text();
}

/** Frames of a stream, the end mark left out; a frame that is no JSON is undefined. */
function framesOf(body: string): unknown[] {
  return body
    .split("\n\n")
    .filter((part) => part.startsWith("data: ") && part !== "data: [DONE]")
    .map((part) => parseJson(part.slice(6)));
}

const choiceOf = (frame: unknown) =>
  record((record(frame)["choices"] as unknown[] | undefined)?.[0]);
const contentOf = (body: string): string =>
  framesOf(body)
    .map((frame) => text(record(choiceOf(frame)["delta"])["content"]))
    .join("");
const finishOf = (body: string): unknown[] =>
  framesOf(body)
    .map((frame) => choiceOf(frame)["finish_reason"])
    .filter((finish) => typeof finish === "string");

describe("through the openai package", () => {
  test("a streamed turn with a tool call, its result, an answer and usage", async () => {
    const client = new OpenAI({
      baseURL: env("OPENROUTER_BASE_URL"),
      apiKey: env("OPENROUTER_API_KEY"),
      maxRetries: 0,
    });
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "ships in Zürich" },
    ];
    const first = await collect(client, messages);
    expect(first.calls).toEqual([
      {
        id: expect.stringMatching(/^call_\w{24}$/) as string,
        name: "search_web",
        arguments: '{"query":"ships in Zürich"}',
      },
    ]);
    expect(first).toMatchObject({ text: "", finish: "tool_calls" });
    const id = first.calls[0]?.id ?? "";
    messages.push(
      {
        role: "assistant",
        content: null,
        tool_calls: [
          {
            id,
            type: "function",
            function: { name: "search_web", arguments: first.calls[0]?.arguments ?? "" },
          },
        ],
      },
      {
        role: "tool",
        tool_call_id: id,
        content: JSON.stringify({ results: [{ title: "Harbour — 港" }] }),
      },
    );
    const second = await collect(client, messages);
    expect(second.calls).toEqual([]);
    expect(second.text).toContain("Harbour — 港");
    expect(second.finish).toBe("stop");
    expect(second.usage).toMatchObject({
      prompt_tokens: expect.any(Number) as number,
      completion_tokens: expect.any(Number) as number,
      cost: expect.any(Number) as number,
      completion_tokens_details: { reasoning_tokens: 0 },
    });
    expect(second.usage?.total_tokens).toBe(
      (second.usage?.prompt_tokens ?? 0) + (second.usage?.completion_tokens ?? 0),
    );
    expect(second.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(0);
  });

  test("a wrong key is its 401, a rate limit its 429 with Retry-After", async () => {
    const client = new OpenAI({
      baseURL: env("OPENROUTER_BASE_URL"),
      apiKey: "wrong",
      maxRetries: 0,
    });
    await expect(collect(client, [{ role: "user", content: "x" }])).rejects.toMatchObject({
      status: 401,
    });
    const limited = await ask("[[error:429]]");
    expect(limited.status).toBe(429);
    expect(limited.headers.get("retry-after")).toBe("1");
    expect(await limited.json()).toMatchObject({
      error: {
        code: 429,
        message: expect.any(String) as string,
        metadata: { provider_name: "Simulated" },
      },
    });
  });

  async function collect(client: OpenAI, messages: OpenAI.ChatCompletionMessageParam[]) {
    const stream = await client.chat.completions.create({
      model: "openai/gpt-4o-mini",
      messages,
      tools: [SEARCH],
      stream: true,
      stream_options: { include_usage: true },
    });
    let said = "";
    let finish: string | null = null;
    let usage: OpenAI.CompletionUsage | null = null;
    const calls: { id: string; name: string; arguments: string }[] = [];
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      said += choice?.delta.content ?? "";
      finish = choice?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
      for (const part of choice?.delta.tool_calls ?? []) {
        const call = (calls[part.index] ??= { id: "", name: "", arguments: "" });
        call.id += part.id ?? "";
        call.name += part.function?.name ?? "";
        call.arguments += part.function?.arguments ?? "";
      }
    }
    return { text: said, finish, usage, calls };
  }
});

describe("the wire", () => {
  test("comments, role first, [DONE] last, a usage frame only when asked", async () => {
    const asked = await askText("hello");
    expect(asked.startsWith(": OPENROUTER PROCESSING\n\n")).toBe(true);
    expect(asked.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(choiceOf(framesOf(asked)[0])["delta"]).toEqual({ role: "assistant", content: "" });
    expect(framesOf(asked).at(-1)).toMatchObject({
      choices: [],
      usage: { total_tokens: expect.any(Number) as number },
    });
    const unasked = await askText("hello", { stream_options: undefined });
    expect(unasked).not.toContain('"usage"');
  });

  test("the same request gives the same bytes, in another server too; another request differs", async () => {
    const other = await startSimulators({ now: () => 1 });
    try {
      const again = await fetch(`${other.env["OPENROUTER_BASE_URL"] ?? ""}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${other.env["OPENROUTER_API_KEY"] ?? ""}` },
        body: JSON.stringify({
          model: "a/b",
          messages: [{ role: "user", content: "[[reason]] hi" }],
          stream: true,
          stream_options: { include_usage: true },
        }),
      });
      const first = await askText("[[reason]] hi", { model: "a/b" });
      expect(await again.text()).toBe(first);
      expect(await askText("[[reason]] hi!", { model: "a/b" })).not.toBe(first);
    } finally {
      await other.close();
    }
  });

  test("bytes are torn inside characters, and every size of tear gives the same text", async () => {
    const plain = await askText("[[words:40]] tear");
    expect(plain).toMatch(/[^\p{ASCII}]/u);
    const response = await ask("[[words:40]] tear");
    let torn = false;
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      const decoded = new TextDecoder().decode(chunk);
      torn ||= decoded.includes("\uFFFD");
    }
    expect(torn).toBe(true);
    for (const size of [1, 7])
      expect(contentOf(await askText(`[[words:8]] tear[[split:${size}]]`)).split(" ")).toHaveLength(
        8,
      );
  });

  test("models are listed without a key", async () => {
    const models: unknown = await (await fetch(`${env("OPENROUTER_BASE_URL")}/models`)).json();
    expect(record(models)["data"]).toContainEqual(
      expect.objectContaining({ id: "openai/gpt-4o-mini", context_length: 128_000 }),
    );
  });

  test("without streaming the whole message comes at once", async () => {
    const whole: unknown = await (
      await ask("[[tool:get_current_time {}]]", { stream: false, tools: [TIME] })
    ).json();
    expect(whole).toMatchObject({
      object: "chat.completion",
      choices: [
        {
          finish_reason: "tool_calls",
          message: {
            content: null,
            tool_calls: [{ function: { name: "get_current_time", arguments: "{}" } }],
          },
        },
      ],
      usage: { total_tokens: expect.any(Number) as number },
    });
    expect(await (await ask("[[error:inband]]", { stream: false })).json()).toMatchObject({
      error: { code: 502 },
      choices: [{ finish_reason: "error" }],
    });
  });

  test("a missing key, a bad body, a bad model and no messages are refused in its shape", async () => {
    const post = (init: RequestInit) =>
      fetch(`${env("OPENROUTER_BASE_URL")}/chat/completions`, { method: "POST", ...init });
    const authorization = `Bearer ${env("OPENROUTER_API_KEY")}`;
    expect(await (await post({})).json()).toEqual({
      error: { message: "No auth credentials found", code: 401 },
    });
    for (const body of ["{", "{}", '{"model":"none","messages":[{"role":"user","content":"x"}]}']) {
      const response = await post({ headers: { authorization }, body });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ error: { code: 400 } });
    }
  });
});

describe("scripts", () => {
  const rows: [string, unknown[], boolean][] = [
    ["[[finish:length]]", ["length"], true],
    ["[[finish:content_filter]]", ["content_filter"], true],
    ["[[error:inband]]", ["error"], true],
    ["[[eof]]", [], false],
    ["[[badjson]]", ["stop"], true],
    ["[[empty]]", ["stop"], true],
  ];
  test.each(rows)("%s", async (directive, finish, done) => {
    const body = await askText(`${directive} words`);
    expect(finishOf(body)).toEqual(finish);
    expect(body.endsWith("data: [DONE]\n\n")).toBe(done);
    expect(contentOf(body) === "").toBe(directive === "[[empty]]");
    expect(framesOf(body).includes(undefined)).toBe(directive === "[[badjson]]");
  });

  test("an in-band error says its code, and may come before any text or without a choice", async () => {
    const body = await askText("[[error:inband:429]][[words:0]]");
    expect(framesOf(body).at(-1)).toMatchObject({
      error: { code: 429 },
      choices: [{ finish_reason: "error" }],
    });
    expect(contentOf(body)).toBe("");
    expect(framesOf(await askText("[[error:bare]]")).at(-1)).toMatchObject({
      error: { code: 502 },
      choices: [],
    });
  });

  test("[[cut]] breaks the connection, [[hang]] leaves it open until the client goes", async () => {
    await expect((await ask("[[cut]]")).text()).rejects.toThrow();
    const going = new AbortController();
    const response = await fetch(`${env("OPENROUTER_BASE_URL")}/chat/completions`, {
      method: "POST",
      signal: going.signal,
      headers: { authorization: `Bearer ${env("OPENROUTER_API_KEY")}` },
      body: JSON.stringify({
        model: "a/b",
        stream: true,
        messages: [{ role: "user", content: "[[hang]]" }],
      }),
    });
    const reader = response.body?.getReader();
    expect((await reader?.read())?.done).toBe(false);
    going.abort();
    await expect(drain(reader)).rejects.toThrow();
  });

  async function drain(reader: ReadableStreamDefaultReader<Uint8Array> | undefined) {
    while (reader !== undefined && !(await reader.read()).done);
  }

  test("[[error:503]] is refused before the first byte, for the named model alone", async () => {
    expect((await ask("[[error:503]][[only:gpt]]")).status).toBe(503);
    expect((await ask("[[error:503]][[only:gpt]]", { model: "other/model" })).status).toBe(200);
  });

  test("[[words:n]] is exact, [[reason]] adds reasoning, pauses and comments leave the text alone", async () => {
    const long = contentOf(await askText("[[words:1500]]"));
    expect(long.split(" ")).toHaveLength(1500);
    const reasoned = await askText("[[reason]][[slow:1]][[wait:1]] why");
    expect(
      framesOf(reasoned).some(
        (frame) => typeof record(choiceOf(frame)["delta"])["reasoning"] === "string",
      ),
    ).toBe(true);
    expect(framesOf(reasoned).at(-1)).not.toMatchObject({
      usage: { completion_tokens_details: { reasoning_tokens: 0 } },
    });
  });

  test("a token limit ends the answer with length", async () => {
    const body = await askText("[[words:100]]", { max_tokens: 10 });
    expect(finishOf(body)).toEqual(["length"]);
    expect(Buffer.byteLength(contentOf(body))).toBeLessThanOrEqual(40);
  });
});

describe("tools", () => {
  const script =
    '[[tool:get_current_time {"zone":[["a]]b"]]}]] [[tool:search_web {"query":"x"}]] then [[tool:get_current_time {}]]';
  const step = (count: number) => [
    { role: "user", content: script },
    ...Array.from({ length: count }, (_, i) => [
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: `c${i}`, type: "function", function: { name: "x", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: `c${i}`, content: "{}" },
    ]).flat(),
  ];
  async function callsAt(count: number, more: object = {}): Promise<unknown[]> {
    const whole: unknown = await (
      await ask("", { messages: step(count), tools: [SEARCH, TIME], stream: false, ...more })
    ).json();
    const message = record(choiceOf(whole)["message"]);
    return ((message["tool_calls"] ?? []) as unknown[]).map((call) =>
      record(record(call)["function"]),
    );
  }

  test("adjacent calls go out together, the rest in order, then the answer", async () => {
    expect(await callsAt(0)).toEqual([
      { name: "get_current_time", arguments: '{"zone":[["a]]b"]]}' },
      { name: "search_web", arguments: '{"query":"x"}' },
    ]);
    expect(await callsAt(1)).toEqual([{ name: "get_current_time", arguments: "{}" }]);
    expect(await callsAt(2)).toEqual([]);
  });

  test("a tool that is not offered, and any tool with tool_choice none, is not called", async () => {
    expect(await callsAt(0, { tools: [TIME] })).toHaveLength(1);
    expect(await callsAt(0, { tool_choice: "none" })).toEqual([]);
    expect(await callsAt(0, { tools: undefined })).toEqual([]);
  });

  test("search_web is called once whatever the prompt, before the scripted calls", async () => {
    const prompt = "find ballast [[tool:get_current_time {}]]";
    const at = async (count: number) => {
      const messages = [{ role: "user", content: prompt }, ...step(count).slice(1)];
      return callsAt(0, { messages });
    };
    expect(await at(0)).toEqual([{ name: "search_web", arguments: '{"query":"find ballast"}' }]);
    expect(await at(1)).toEqual([{ name: "get_current_time", arguments: "{}" }]);
    expect(await at(2)).toEqual([]);
  });

  async function partsOf(manners: string) {
    const prompt = `[[calls:${manners}]] [[tool:get_current_time {"timeZone":"Europe/Zürich"}]] [[tool:get_current_time {}]]`;
    const frames = framesOf(await askText(prompt, { tools: [TIME] }));
    const deltas = frames.map((frame) => record(choiceOf(frame)["delta"]));
    const parts = deltas.flatMap((delta) => (delta["tool_calls"] ?? []) as unknown[]).map(record);
    return { deltas, parts, text: JSON.stringify(parts) };
  }
  const ZURICH = { timeZone: "Europe/Zürich" };

  test("calls come in the manner that the prompt asks for", async () => {
    const places = async (manners: string) =>
      new Set((await partsOf(manners)).parts.map(({ index }) => index));
    expect(await places("repeated")).toEqual(new Set([0, 1]));
    expect(await places("same-index")).toEqual(new Set([0]));
    expect(await places("no-index")).toEqual(new Set([undefined]));
    const ids = async (manners: string) =>
      new Set((await partsOf(manners)).parts.map(({ id }) => id).filter((id) => id !== undefined));
    expect((await ids("repeated")).size).toBe(2);
    expect((await ids("same-id")).size).toBe(1);
    expect(await ids("restart-ids")).toEqual(new Set(["tool:0", "tool:1"]));
    expect((await ids("no-ids")).size).toBe(0);
    expect((await partsOf("objects")).parts[0]).toMatchObject({ function: { arguments: ZURICH } });
    expect((await partsOf("empty")).text).not.toContain("Zürich");
    const pieces = (await partsOf("pieces")).parts.map((one) => record(one["function"]));
    expect(pieces[0]).not.toHaveProperty("name");
    expect(
      pieces
        .slice(0, 7)
        .map(({ name }) => text(name))
        .join(""),
    ).toBe("get_current_time");
  });

  test("an answer may be cut within its last call, which then ends by its length", async () => {
    const body = await askText('[[calls:cut]] [[tool:get_current_time {"timeZone":"UTC"}]]', {
      tools: [TIME],
    });
    expect(finishOf(body)).toEqual(["length"]);
    expect(body).not.toContain("UTC");
  });

  test("a tool that is not offered is called where the prompt insists", async () => {
    const body = await askText("[[calls:unoffered]] [[tool:search_web {}]]", { tools: [TIME] });
    expect(body).toContain("search_web");
  });

  test("what a model wants back is demanded, and a strict history too", async () => {
    const prompt = "[[calls:state]] [[tool:get_current_time {}]]";
    const frames = framesOf(await askText(prompt, { tools: [TIME] }));
    const deltas = frames.map((frame) => record(choiceOf(frame)["delta"]));
    const details = deltas.flatMap((delta) => (delta["reasoning_details"] ?? []) as unknown[]);
    expect(details).toMatchObject([{ type: "reasoning.encrypted" }]);
    const again = (answer: object, result = "c") =>
      ask("", {
        messages: [
          { role: "user", content: prompt },
          {
            role: "assistant",
            content: null,
            tool_calls: [{ id: "c", function: { name: "get_current_time", arguments: "{}" } }],
            ...answer,
          },
          { role: "tool", tool_call_id: result, content: "{}" },
        ],
        tools: [TIME],
      });
    expect((await again({ reasoning_details: details })).status).toBe(200);
    expect((await again({})).status).toBe(400);
    expect((await again({ reasoning_details: details }, "d")).status).toBe(400);
  });

  test("text comes in parts, beside calls, and with the ends of lines, where asked for", async () => {
    expect(await askText("[[parts]] hi")).toContain('"content":[{"type":"text"');
    const beside = await askText("[[say:Let me look.]] [[tool:get_current_time {}]]", {
      tools: [TIME],
    });
    expect(contentOf(beside)).toBe("Let me look.");
    expect(contentOf(await askText("[[lines]] hi"))).toContain("\u0085two\u2028");
  });

  test("frames may come with signs of life between them, and without the last blank line", async () => {
    const pings = await askText("[[pings]] hi");
    expect(pings).toContain("event: ping\ndata: {}\n\n");
    expect(pings).toContain("data: [DONE]\n\n");
    const unended = await askText("[[unended]] hi");
    expect(unended).toMatch(/"finish_reason":"stop"[^\n]*$/);
  });

  test("an error may be a text beside the finish reason", async () => {
    const body = await askText("[[error:text]] hi");
    expect(finishOf(body)).toEqual(["stop"]);
    expect(body).toContain('"error":"Upstream closed"');
  });

  test("the arguments of a call arrive in parts, after its name and id", async () => {
    const prompt = '[[tool:get_current_time {"timeZone":"Europe/Zürich"}]]';
    const deltas = framesOf(await askText(prompt, { tools: [TIME] }))
      .flatMap((frame) => (record(choiceOf(frame)["delta"])["tool_calls"] ?? []) as unknown[])
      .map(record);
    expect(deltas[0]).toMatchObject({
      index: 0,
      id: expect.stringMatching(/^call_/) as string,
      function: { name: "get_current_time", arguments: "" },
    });
    const parts = deltas.slice(1).map((delta) => text(record(delta["function"])["arguments"]));
    expect(parts.length).toBeGreaterThan(2);
    expect(parts.join("")).toBe('{"timeZone":"Europe/Zürich"}');
  });

  test("broken arguments go out as written", async () => {
    expect(
      await callsAt(0, {
        messages: [{ role: "user", content: "[[tool:get_current_time {oops]]" }],
        tools: [TIME],
      }),
    ).toEqual([{ name: "get_current_time", arguments: "{oops" }]);
  });
});
