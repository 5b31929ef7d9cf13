import { createHash } from "node:crypto";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startSimulators, type Simulators } from "./index";
import { list, record, text } from "./json";

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5);
let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators({ now: () => NOW_MS });
});
afterAll(() => sim.close());
beforeEach(() => control("reset", {}));

async function control(path: string, body: object) {
  const response = await fetch(`${sim.url}/control/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return record(await response.json());
}

describe("push tokens", () => {
  const mint = async (overrides: object = {}) =>
    text((await control("google/push-token", overrides))["token"]);
  const verify = (token: string) =>
    jwtVerify(token, createRemoteJWKSet(new URL(env("GOOGLE_CERTS_URL"))), {
      issuer: ["https://accounts.google.com", "accounts.google.com"],
      audience: env("GMAIL_PUSH_AUDIENCE"),
      algorithms: ["RS256"],
      currentDate: new Date(NOW_MS),
    });

  test("verify against the certificates, with the claims that Pub/Sub sends", async () => {
    const { payload, protectedHeader } = await verify(await mint());
    expect(payload).toEqual({
      aud: env("GMAIL_PUSH_AUDIENCE"),
      azp: payload.sub,
      email: env("GMAIL_PUSH_SERVICE_ACCOUNT"),
      email_verified: true,
      exp: NOW_MS / 1000 + 3600,
      iat: NOW_MS / 1000,
      iss: "https://accounts.google.com",
      sub: expect.stringMatching(/^\d+$/) as string,
    });
    expect(protectedHeader).toMatchObject({ alg: "RS256", typ: "JWT" });
  });

  test.each([
    ["another audience", { audience: "other" }],
    ["an old token", { issuedAtSeconds: NOW_MS / 1000 - 10_000 }],
    ["no algorithm", { algorithm: "none" }],
    ["the public key as a secret", { algorithm: "HS256" }],
    ["a stranger's key", { foreignKey: true }],
    ["another issuer", { issuer: "https://evil.example" }],
    ["an unknown key id", { kid: "nobody" }],
  ])("%s is refused", async (_, overrides) => {
    await expect(verify(await mint(overrides))).rejects.toThrow();
  });

  test("claims can be changed and left out", async () => {
    const { payload } = await verify(
      await mint({ email: "x@y.example", emailVerified: "true", claims: { iat: null, extra: 1 } }),
    );
    expect(payload).toMatchObject({ email: "x@y.example", email_verified: "true", extra: 1 });
    expect(payload).not.toHaveProperty("iat");
  });

  test("after a rotation the old token no longer verifies", async () => {
    const old = await mint();
    await control("google/rotate-keys", {});
    await expect(verify(old)).rejects.toThrow();
    await verify(await mint());
  });
});

const REDIRECT = "http://127.0.0.1:4311/api/gmail/auth/callback";
const VERIFIER = "a-verifier-that-is-long-enough-for-the-rule-of-43";

function form(fields: Record<string, string>, secret = env("GMAIL_OAUTH_CLIENT_SECRET")) {
  return fetch(`${env("GOOGLE_OAUTH_BASE_URL")}/token`, {
    method: "POST",
    body: new URLSearchParams({
      client_id: env("GMAIL_OAUTH_CLIENT_ID"),
      client_secret: secret,
      ...fields,
    }),
  });
}

async function consentCode(email = "ada@example.com"): Promise<string> {
  const query = new URLSearchParams({
    client_id: env("GMAIL_OAUTH_CLIENT_ID"),
    redirect_uri: REDIRECT,
    state: "s1",
    login_hint: email,
    code_challenge: createHash("sha256").update(VERIFIER).digest("base64url"),
    code_challenge_method: "S256",
  });
  const response = await fetch(
    `${env("GOOGLE_OAUTH_BASE_URL")}/o/oauth2/v2/auth?${query.toString()}`,
    { redirect: "manual" },
  );
  const target = new URL(response.headers.get("location") ?? "");
  expect(target.searchParams.get("state")).toBe("s1");
  return target.searchParams.get("code") ?? "";
}

const redeem = (code: string, verifier = VERIFIER) =>
  form({
    grant_type: "authorization_code",
    code,
    redirect_uri: REDIRECT,
    code_verifier: verifier,
  });

describe("OAuth", () => {
  test("a code is good once, for its verifier, and its refresh token until it is revoked", async () => {
    const code = await consentCode();
    expect((await redeem(code, "wrong")).status).toBe(400);
    const granted = record(await (await redeem(code)).json());
    expect(granted).toMatchObject({ expires_in: 3599, token_type: "Bearer" });
    expect(await (await redeem(code)).json()).toMatchObject({ error: "invalid_grant" });
    const refreshToken = text(granted["refresh_token"]);
    const refresh = () => form({ grant_type: "refresh_token", refresh_token: refreshToken });
    const refreshed = record(await (await refresh()).json());
    expect(refreshed["access_token"]).toBe(granted["access_token"]);
    expect(refreshed).not.toHaveProperty("refresh_token");
    await fetch(`${env("GOOGLE_OAUTH_BASE_URL")}/revoke?token=${refreshToken}`, { method: "POST" });
    const gone = await refresh();
    expect(gone.status).toBe(400);
    expect(await gone.json()).toEqual({
      error: "invalid_grant",
      error_description: "Token has been expired or revoked.",
    });
  });

  test("a wrong client and a redirect away from this machine are refused", async () => {
    const refused = await form({ grant_type: "refresh_token", refresh_token: "x" }, "wrong");
    expect(refused.status).toBe(401);
    expect(await refused.json()).toMatchObject({ error: "invalid_client" });
    const away = await fetch(
      `${env("GOOGLE_OAUTH_BASE_URL")}/o/oauth2/v2/auth?client_id=${env("GMAIL_OAUTH_CLIENT_ID")}&redirect_uri=https://evil.example/`,
      { redirect: "manual" },
    );
    expect(away.status).toBe(400);
  });
});

describe("Gmail", () => {
  let token = "";
  beforeEach(async () => {
    token = text(record(await (await redeem(await consentCode())).json())["access_token"]);
  });
  const get = (path: string, bearer = token) =>
    fetch(`${env("GMAIL_BASE_URL")}/users/me/${path}`, {
      headers: { authorization: `Bearer ${bearer}` },
    });
  const read = async (path: string) => record(await (await get(path)).json());

  test("profile and watch", async () => {
    expect(await read("profile")).toEqual({
      emailAddress: "ada@example.com",
      messagesTotal: 12,
      threadsTotal: 12,
      historyId: "10012",
    });
    const watch = (topicName: string) =>
      fetch(`${env("GMAIL_BASE_URL")}/users/me/watch`, {
        method: "POST",
        headers: { authorization: `Bearer ${token}` },
        body: JSON.stringify({ topicName, labelIds: ["INBOX"] }),
      });
    expect(await (await watch("projects/p/topics/t")).json()).toEqual({
      historyId: "10012",
      expiration: String(NOW_MS + 604_800_000),
    });
    expect((await watch("t")).status).toBe(400);
  });

  test("history pages to its end and every record names its message", async () => {
    const delivered = { email: "ada@example.com", count: 5, historyId: 10_050 };
    expect((await control("google/mailbox", delivered))["messages"]).toBe(17);
    const ids: string[] = [];
    let pageToken = "";
    let pages = 0;
    do {
      const page = await read(`history?startHistoryId=10010&maxResults=3${pageToken}`);
      expect(page["historyId"]).toBe("10050");
      ids.push(...list(page["history"]).map((one) => text(record(one)["id"])));
      const next = text(page["nextPageToken"]);
      pageToken = next === "" ? "" : `&pageToken=${next}`;
      pages += 1;
    } while (pageToken !== "");
    expect(pages).toBe(3);
    expect(ids).toEqual(["10011", "10012", "10046", "10047", "10048", "10049", "10050"]);
    expect(await read("history?startHistoryId=10050")).toEqual({ historyId: "10050" });
  });

  test("expired history is 404, a bad start 400", async () => {
    await control("google/mailbox", { email: "ada@example.com", expireBefore: 10_005 });
    const gone = await get("history?startHistoryId=10004");
    expect(gone.status).toBe(404);
    expect(await gone.json()).toMatchObject({ error: { code: 404, status: "NOT_FOUND" } });
    expect((await get("history?startHistoryId=10005")).status).toBe(200);
    expect((await get("history?startHistoryId=x")).status).toBe(400);
    expect((await get("history?startHistoryId=10005&pageToken=zz")).status).toBe(400);
  });

  test("messages are listed newest first and read in each format", async () => {
    const newest = record(list((await read("messages?maxResults=1"))["messages"])[0]);
    const id = text(newest["id"]);
    const full = await read(`messages/${id}`);
    expect(full).toMatchObject({ id, historyId: "10012", payload: { mimeType: "text/plain" } });
    const payload = record(full["payload"]);
    expect(Buffer.from(text(record(payload["body"])["data"]), "base64url").toString()).toContain(
      "order",
    );
    expect(payload["headers"]).toContainEqual({ name: "To", value: "ada@example.com" });
    expect(
      record((await read(`messages/${id}?format=metadata`))["payload"])["body"],
    ).not.toHaveProperty("data");
    expect(await read(`messages/${id}?format=minimal`)).not.toHaveProperty("payload");
    expect(
      Buffer.from(text((await read(`messages/${id}?format=raw`))["raw"]), "base64url").toString(),
    ).toContain("Subject: ");
    expect((await get("messages/none")).status).toBe(404);
  });

  test("a wrong token and another's mailbox are refused", async () => {
    const refused = await get("profile", `${token}x`);
    expect(refused.status).toBe(401);
    expect(await refused.json()).toMatchObject({
      error: { code: 401, status: "UNAUTHENTICATED", errors: [{ reason: "authError" }] },
    });
    const other = await fetch(`${env("GMAIL_BASE_URL")}/users/bob@example.com/profile`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(other.status).toBe(403);
  });
});
