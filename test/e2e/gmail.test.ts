import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MINUTE } from "../../src/core/time";
import { type Backend, startBackend, until } from "./backend";
import { problemOf, refusal, send, type WireAnswer, type WireRequest } from "./wire";

interface Change {
  readonly emailAddress: string;
  readonly historyId: string;
  readonly advanced: boolean;
}

let backend: Backend;
/** How far the deployment's clock is ahead. */
let aheadMs = 0;
beforeAll(async () => {
  backend = await startBackend({
    env: { RATE_LIMIT_GMAIL_PUSH_MAX: "5000" },
    injection: { nowMs: () => Date.now() + aheadMs },
  });
});
afterAll(async () => {
  await backend.close();
});

const envelope = (email: unknown, historyId: unknown): string =>
  JSON.stringify({
    message: {
      data: Buffer.from(JSON.stringify({ emailAddress: email, historyId })).toString("base64"),
      messageId: "1",
      publishTime: "2026-01-01T00:00:00Z",
    },
    subscription: "projects/p/subscriptions/s",
  });

interface Push extends Pick<WireRequest, "headers"> {
  readonly query?: string;
}

async function push(body: string, { headers = {}, query = "" }: Push = {}): Promise<WireAnswer> {
  return await send(`${backend.siteUrl}/api/gmail/push${query}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
}

const shared = (body: string) => push(body, { headers: { "x-pubsub-token": "e2e-pubsub-token" } });

async function oidc(claims: Record<string, unknown> = {}): Promise<Push> {
  const { token } = await backend.control<{ token: string }>("google/push-token", claims);
  return { headers: { authorization: `Bearer ${token}` } };
}

const replayed = ({ headers }: WireAnswer): boolean => headers["x-idempotent-replay"] === "1";

async function recorded(email: string): Promise<readonly Change[]> {
  const { changes } = await backend.operator<{ changes: Change[] }>(
    "integrations/gmail:listHistoryChanges",
    { limit: 500 },
  );
  return changes.filter(({ emailAddress }) => emailAddress === email);
}

test("a push that Google signed is recorded once, however often it comes", async () => {
  const body = envelope("Ann@Example.com", 1001);
  const proof = await oidc();
  const answers = await Promise.all(Array.from({ length: 8 }, () => push(body, proof)));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  expect(answers.filter((answer) => !replayed(answer))).toHaveLength(1);
  // The same change under another case, and its id as a text.
  expect(replayed(await push(envelope("ann@example.com", "1001"), proof))).toBe(true);
  const changes = await until(
    () => recorded("ann@example.com"),
    ({ length }) => length > 0,
  );
  expect(changes).toMatchObject([{ historyId: "1001", advanced: true }]);
});

test("history ids come in any order; the mailbox only moves forward", async () => {
  const proof = await oidc();
  for (const id of ["18446744073709551615", "20", "9"])
    expect((await push(envelope("bea@example.com", id), proof)).status).toBe(200);
  const changes = await until(
    () => recorded("bea@example.com"),
    ({ length }) => length === 3,
  );
  const advanced = changes.filter((change) => change.advanced).map(({ historyId }) => historyId);
  expect(advanced.at(-1)).toBe("18446744073709551615");
});

test("the shared token opens in each of its four places, whatever else is sent", async () => {
  const token = backend.secrets.GMAIL_PUBSUB_VERIFY_TOKEN;
  const google = await oidc({ audience: "https://elsewhere.example" });
  const ways: Push[] = [
    { headers: { "x-pubsub-token": token } },
    { headers: { "x-gmail-pubsub-token": token } },
    { headers: { authorization: `Bearer ${token}` } },
    { query: `?token=${token}` },
    { query: `?token=${token}`, headers: google.headers ?? {} },
  ];
  const answers = await Promise.all(
    ways.map((way, i) => push(envelope("cas@example.com", i + 1), way)),
  );
  expect(answers.map(({ status }) => status)).toEqual(ways.map(() => 200));
});

describe("what Google did not sign for us", () => {
  test("is refused, and nothing is recorded", async () => {
    const now = Math.floor(Date.now() / 1000);
    const claims: Record<string, Record<string, unknown>> = {
      "another audience": { audience: "https://elsewhere.example" },
      "a list of audiences": { audience: ["ballast-sim-gmail-push"] },
      "another account": { email: "mallory@ballast-sim.iam.gserviceaccount.com" },
      "e-mail not verified": { emailVerified: false },
      "e-mail verified as a text": { emailVerified: "true" },
      "another issuer": { issuer: "https://accounts.example.com" },
      expired: { issuedAtSeconds: now - 7_200, expiresInSeconds: 3_600 },
      "301 seconds past its end": { issuedAtSeconds: now - 3_902, expiresInSeconds: 3_600 },
      "from the future": { issuedAtSeconds: now + 400 },
      "a lifetime of a week": { expiresInSeconds: 7 * 86_400 },
      "no expiry": { claims: { exp: null } },
      "no audience": { claims: { aud: null } },
      "algorithm none": { algorithm: "none" },
      "HMAC with the public key": { algorithm: "HS256" },
      "a stranger's key": { foreignKey: true },
    };
    const names = Object.keys(claims);
    const answers = await Promise.all(
      Object.values(claims).map(async (claim, i) =>
        push(envelope("mallory@example.com", i + 1), await oidc(claim)),
      ),
    );
    expect(answers.map((answer, i) => [names[i], ...refusal(answer)])).toEqual(
      names.map((name) => [name, 403, "forbidden"]),
    );
    const others = await Promise.all(
      [
        {},
        { headers: { "x-pubsub-token": "" } },
        { headers: { "x-pubsub-token": "wrong" } },
        { headers: { "x-pubsub-token": ["e2e-pubsub-token", "e2e-pubsub-token"] } },
        { headers: { authorization: "Basic e2e-pubsub-token" } },
        { headers: { authorization: "Bearer a.b.c" } },
        { headers: { authorization: "Bearer" } },
        { query: "?token=" },
        { query: "?token=E2E-PUBSUB-TOKEN" },
      ].map((way) => push(envelope("mallory@example.com", 99), way)),
    );
    expect(others.map(refusal)).toEqual(others.map(() => [403, "forbidden"]));
    expect(await recorded("mallory@example.com")).toEqual([]);
  });
});

test("a new key of Google's is fetched, at most once a minute", async () => {
  const old = await oidc();
  await backend.control("google/rotate-keys", {});
  const proof = await oidc();
  // Keys were fetched moments ago: a fetch for every unknown id would make us an amplifier. What
  // Google signed comes again when there is a fetch.
  const early = await push(envelope("dot@example.com", 1), proof);
  expect(refusal(early)).toEqual([503, "upstream_unavailable"]);
  expect(Number(early.headers["retry-after"])).toBeGreaterThanOrEqual(1);
  aheadMs = MINUTE;
  // Google fails just now: neither a stranger nor a friend can be told.
  await backend.fault("google", { status: 503 });
  const refused = await push(envelope("dot@example.com", 1), proof);
  expect(refusal(refused)).toEqual([503, "upstream_unavailable"]);
  expect(Number(refused.headers["retry-after"])).toBeGreaterThanOrEqual(1);
  await backend.resetFaults();
  aheadMs = 2 * MINUTE;
  expect((await push(envelope("dot@example.com", 1), proof)).status).toBe(200);
  expect(refusal(await push(envelope("dot@example.com", 2), old))).toEqual([
    503,
    "upstream_unavailable",
  ]);
  // Google is asked again, and publishes neither the old one nor a made-up one.
  for (const [minutes, made] of [
    [3, old],
    [4, await oidc({ kid: "unknown" })],
  ] as const) {
    aheadMs = minutes * MINUTE;
    expect(refusal(await push(envelope("dot@example.com", 2), made))).toEqual([403, "forbidden"]);
  }
});

test("a body that is no notification is refused with where it is wrong", async () => {
  const data = (value: string) => JSON.stringify({ message: { data: value } });
  const bodies = [
    "{}",
    '{"message":null}',
    '{"message":{}}',
    data(""),
    data("%%%"),
    data(Buffer.from("[]").toString("base64")),
    data(Buffer.from("not json").toString("base64")),
    envelope("nobody", 1),
    envelope("eve@example.com", ""),
    envelope("eve@example.com", "12x"),
    envelope("eve@example.com", -1),
    envelope("eve@example.com", 1.5),
    envelope("eve@example.com", "99999999999999999999999"),
    envelope(7, 7),
  ];
  const answers = await Promise.all(bodies.map(shared));
  expect(answers.map((answer, i) => [bodies[i], ...refusal(answer)])).toEqual(
    bodies.map((body) => [body, 400, "invalid_request"]),
  );
  expect(answers.every((answer) => (problemOf(answer).issues?.length ?? 0) > 0)).toBe(true);
  expect(await recorded("eve@example.com")).toEqual([]);
});

test("without any way to verify, nobody is let in", async () => {
  const settings = [
    { GMAIL_PUBSUB_VERIFY_TOKEN: "", GMAIL_PUSH_AUDIENCE: "", GMAIL_PUSH_SERVICE_ACCOUNT: "" },
    // Half of the pair would accept anybody's Google token.
    { GMAIL_PUBSUB_VERIFY_TOKEN: "", GMAIL_PUSH_SERVICE_ACCOUNT: "" },
    { GMAIL_PUBSUB_VERIFY_TOKEN: "", GMAIL_PUSH_AUDIENCE: "" },
  ];
  const nothing = {
    GMAIL_PUBSUB_VERIFY_TOKEN: null,
    GMAIL_PUSH_AUDIENCE: null,
    GMAIL_PUSH_SERVICE_ACCOUNT: null,
  };
  const body = envelope("fay@example.com", 1);
  try {
    for (const variables of settings) {
      await backend.setEnv({ ...nothing, ...variables });
      const answers = await Promise.all([
        push(body),
        push(body, await oidc()),
        push(body, { query: "?token=" }),
        push(body, { headers: { "x-pubsub-token": "" } }),
        push(body, { headers: { authorization: "Bearer " } }),
      ]);
      expect(answers.map(refusal)).toEqual(answers.map(() => [500, "misconfigured"]));
    }
    // Either way alone is enough.
    await backend.setEnv({
      ...nothing,
      ...settings[1],
      ...settings[2],
      GMAIL_PUBSUB_VERIFY_TOKEN: null,
    });
    expect((await shared(body)).status).toBe(200);
    expect(refusal(await push(envelope("fay@example.com", 2), await oidc()))).toEqual([
      403,
      "forbidden",
    ]);
  } finally {
    await backend.setEnv(nothing);
  }
});
