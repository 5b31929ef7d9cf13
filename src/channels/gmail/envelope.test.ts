import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorData } from "../../errors/appError";
import { readNotification } from "./envelope";
import { isAfter, normalizeHistoryId } from "./historyId";
import { claimKey } from "./notification";

// Envelope as in Google's guides on Pub/Sub push and Gmail push notifications, values our own.
const envelope = (data: unknown) => ({
  message: {
    data,
    messageId: "10000000000000001",
    message_id: "10000000000000001",
    publishTime: "2026-11-20T10:00:00.000Z",
  },
  subscription: "projects/ballast-test/subscriptions/gmail",
});

/** In UTF-8, as Google encodes it. */
const json = (value: unknown) =>
  btoa(String.fromCharCode(...new TextEncoder().encode(JSON.stringify(value))));
const NOTIFICATION = { emailAddress: "dana@example.com", historyId: "9876543210" };

function refusalOf(body: unknown) {
  try {
    readNotification(body);
    return null;
  } catch (error) {
    return errorData(error);
  }
}

describe("a push envelope", () => {
  test("yields mailbox and history id", () => {
    expect(readNotification(envelope(json(NOTIFICATION)))).toEqual(NOTIFICATION);
  });

  test.each([
    ["a number", 9876543210, "9876543210"],
    ["leading zeros", "0042", "42"],
    ["64 bits", "18446744073709551615", "18446744073709551615"],
  ])("takes a history id with %s", (_name, historyId, expected) => {
    expect(readNotification(envelope(json({ ...NOTIFICATION, historyId }))).historyId).toBe(
      expected,
    );
  });

  test.each([
    ["9007199254740992"],
    ["9007199254740993"],
    ["12345678901234567891"],
    ["18446744073709551615"],
  ])("keeps each digit of the number %s", (digits) => {
    for (const text of [
      `{"emailAddress":"dana@example.com","historyId":${digits}}`,
      `{ "historyId" : ${digits} , "emailAddress" : "dana@example.com" }`,
      `{"historyId":\n${digits}\n,"emailAddress":"dana@example.com"}`,
    ])
      expect(readNotification(envelope(btoa(text)))).toEqual({
        emailAddress: "dana@example.com",
        historyId: digits,
      });
  });

  test("takes no number from inside a text", () => {
    const emailAddress = '"historyId":9007199254740993,@example.com';
    expect(readNotification(envelope(json({ emailAddress, historyId: 7 })))).toEqual({
      emailAddress: emailAddress.toLowerCase(),
      historyId: "7",
    });
  });

  test.each(["007", "12345678901234567890123", "9007199254740993.5", "9e15 ", "9e30", "-7"])(
    "refuses the number %s or takes it as JSON does",
    (digits) => {
      const text = `{"emailAddress":"dana@example.com","historyId":${digits}}`;
      const expected = digits === "9e15 " ? undefined : "invalid_request";
      expect(refusalOf(envelope(btoa(text)))?.code).toBe(expected);
    },
  );

  test("takes base64url, with and without padding", () => {
    // These values encode to both characters in which the two alphabets differ.
    const data = json({ ...NOTIFICATION, more: "~~~???>>>" });
    expect(data).toMatch(/[+].*[/]|[/].*[+]/);
    const url = data.replaceAll("+", "-").replaceAll("/", "_");
    expect(readNotification(envelope(url))).toEqual(NOTIFICATION);
    expect(readNotification(envelope(url.replaceAll("=", "")))).toEqual(NOTIFICATION);
    expect(readNotification(envelope(data.replaceAll("=", "")))).toEqual(NOTIFICATION);
  });

  test("makes one claim for one mailbox whatever its case", () => {
    const loud = envelope(json({ ...NOTIFICATION, emailAddress: "Dana@Example.com" }));
    expect(claimKey(readNotification(loud))).toEqual({
      scope: "gmail_push_history",
      key: "dana@example.com:9876543210",
    });
  });

  test.each([
    "charles'@example.com",
    "ivan@xn--e1afmkfd.xn--p1ai",
    '"dana smith"@example.com',
    '"a@b\\"c:d"@example.com',
    "dana+news/2026@example.com",
    "!#$%&'*+-/=?^_`{|}~@example.com",
    "josé@españa.example",
    "用户@例子.广告",
    "😀@example.com",
    "dana@example.international-organisation",
    "dana@[192.0.2.1]",
    "dana..smith.@example.com",
    "dana@localhost",
    "d\u0000\u001f\u007f@example.com",
    `${"d".repeat(64)}@${"e".repeat(255)}`,
  ])("takes the address %j as it comes", (emailAddress) => {
    const body = envelope(json({ ...NOTIFICATION, emailAddress }));
    expect(readNotification(body)).toEqual({ ...NOTIFICATION, emailAddress });
  });

  test.each<readonly [unknown, string]>([
    [null, ""],
    [{}, "message"],
    [{ message: {} }, "message.data"],
    [envelope(""), "message.data"],
    [envelope(7), "message.data"],
    [envelope("a".repeat(8_193)), "message.data"],
    [envelope("%%%"), "message.data"],
    [envelope(btoa("{")), "message.data"],
    [envelope(btoa("\xff\xfe")), "message.data"],
    [envelope(json([])), "message.data"],
    [envelope(json({ historyId: "1" })), "message.data.emailAddress"],
    [envelope(json({ ...NOTIFICATION, emailAddress: "dana" })), "message.data.emailAddress"],
    ...["", "@", "dana@", "@example.com", 7, null, ["dana@example.com"], "\ud800@example.com"].map(
      (emailAddress) =>
        [envelope(json({ ...NOTIFICATION, emailAddress })), "message.data.emailAddress"] as const,
    ),
    [
      envelope(json({ ...NOTIFICATION, emailAddress: `d@${"e".repeat(320)}` })),
      "message.data.emailAddress",
    ],
    [envelope(json({ emailAddress: "dana@example.com" })), "message.data.historyId"],
    ...["", "x", "-1", "1.5", "0", "1e3", "99999999999999999999999", 0, -1, 1.5, 2 ** 70].map(
      (historyId) =>
        [envelope(json({ ...NOTIFICATION, historyId })), "message.data.historyId"] as const,
    ),
  ])("%j is refused at %j", (body, path) => {
    const refusal = refusalOf(body);
    expect(refusal?.code).toBe("invalid_request");
    expect(refusal?.issues?.[0]?.path).toBe(path);
  });

  test("of any JSON at all is read or refused as invalid_request", () => {
    const data = fc.oneof(
      fc.string(),
      fc.jsonValue(),
      fc.jsonValue().map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(data, (value) => {
        expect(["invalid_request", undefined]).toContain(refusalOf(envelope(value))?.code);
      }),
    );
  });
});

describe("history ids", () => {
  test("are ordered as numbers of any size", () => {
    const id = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });
    fc.assert(
      fc.property(id, id, (left, right) => {
        expect(isAfter(String(left), String(right))).toBe(left > right);
      }),
    );
  });

  test("that a double cannot tell apart are told apart", () => {
    expect(isAfter("9007199254740993", "9007199254740992")).toBe(true);
    expect(isAfter("10", "9")).toBe(true);
    expect(isAfter("9", "9")).toBe(false);
  });

  test("are normalized so that equal ones are equal texts", () => {
    expect(normalizeHistoryId("007")).toBe(normalizeHistoryId(7));
  });
});
