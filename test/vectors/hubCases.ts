import { fromHex, hmacSha256, toHex } from "../../src/channels/signature/hmac";
import { signHub256, verifyHub256 } from "../../src/channels/signature/hub256";
import type { Case } from "./cases";
import webhooks from "./webhooks.json";

/** The file as a whole: each scheme has its own fields. */
interface Vector {
  readonly id: string;
  readonly scheme: string;
  readonly expect: string;
  readonly secret?: string;
  readonly body?: string;
  readonly keyHex?: string;
  readonly dataHex?: string;
}

const vectors: readonly Vector[] = webhooks;

const utf8 = (text: string) => new TextEncoder().encode(text);

/** Published vectors of RFC 4231 and of the hub-256 scheme, and the negative matrix of hub-256. */
export async function hubCases(): Promise<readonly Case[]> {
  return [...rfc4231Cases(), ...publishedHubCases(), ...(await negativeCases())];
}

function rfc4231Cases(): Case[] {
  return vectors.flatMap((vector) => {
    const { id, scheme, keyHex, dataHex, expect } = vector;
    if (scheme !== "hmac-sha256" || keyHex === undefined || dataHex === undefined) return [];
    const run = async () => {
      const code = toHex(await hmacSha256(fromHex(keyHex), fromHex(dataHex)));
      // Test case 5 publishes the first 128 bits only.
      if (!code.startsWith(expect)) throw new Error(`computed ${code}`);
    };
    return [{ name: id, expect: "accepted", run }];
  });
}

function publishedHubCases(): Case[] {
  return vectors.flatMap((vector) => {
    const { id, scheme, secret, body, expect: signature } = vector;
    if (scheme !== "hub-256" || body === undefined) return [];
    const run = () => verifyHub256({ signature, bytes: utf8(body), secret });
    return [{ name: id, expect: "accepted", run }];
  });
}

const SECRET = "a secret of our own: 2f6b";
// Escaped the way Meta escapes it: only these bytes verify, not the text they stand for.
const BODY = '{"entry":[{"id":"0","changes":[{"field":"messages","value":{"t":"caf\\u00e9"}}]}]}';

interface Attempt {
  readonly signature: string | null;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly secret: string | undefined;
}

async function negativeCases(): Promise<Case[]> {
  const bytes = utf8(BODY);
  const signature = await signHub256(SECRET, bytes);
  const sound = { signature, bytes, secret: SECRET };
  const refused = [
    ...headerAttempts(signature),
    ...bodyAttempts(),
    ...secretAttempts(),
    { name: "signature under another secret", change: { signature: await signHub256("x", bytes) } },
  ].map(({ name, change }) => verifyCase(name, "forbidden", { ...sound, ...change }));
  return [
    verifyCase("sound delivery", "accepted", sound),
    verifyCase("empty body, signed", "accepted", {
      ...sound,
      bytes: utf8(""),
      signature: await signHub256(SECRET, utf8("")),
    }),
    ...refused,
    verifyCase("secret unset", "misconfigured", { ...sound, secret: undefined }),
    verifyCase("secret empty", "misconfigured", { ...sound, secret: "" }),
    verifyCase("secret empty and no header", "misconfigured", {
      ...sound,
      secret: "",
      signature: null,
    }),
  ];
}

interface Negative {
  readonly name: string;
  readonly change: Partial<Attempt>;
}

function headerAttempts(signature: string): Negative[] {
  const hex = signature.slice("sha256=".length);
  const headers: Record<string, string | null> = {
    "no header": null,
    "empty header": "",
    "prefix alone": "sha256=",
    "no prefix": hex,
    "older scheme": `sha1=${hex.slice(0, 40)}`,
    "other scheme with this code": `sha1=${hex}`,
    "later scheme": `sha512=${hex}`,
    "prefix in upper case": `SHA256=${hex}`,
    "code in upper case": `sha256=${hex.toUpperCase()}`,
    "one digit in upper case": `sha256=${hex.replace(/[a-f]/, (digit) => digit.toUpperCase())}`,
    "truncated by one digit": signature.slice(0, -1),
    "truncated to 128 bits": signature.slice(0, "sha256=".length + 32),
    "one digit too many": `${signature}0`,
    "not hexadecimal": `sha256=${"g".repeat(64)}`,
    "all zeros": `sha256=${"0".repeat(64)}`,
    "leading space": ` ${signature}`,
    "trailing space": `${signature} `,
    "trailing newline": `${signature}\n`,
    "space after the prefix": `sha256= ${hex.slice(1)}`,
    "doubled header": `${signature}, ${signature}`,
    "doubled header, second sound": `sha256=${"0".repeat(64)},${signature}`,
    "a megabyte of header": `sha256=${"a".repeat(1_048_576)}`,
    "digits outside ASCII": `sha256=${"٠".repeat(64)}`,
  };
  const changed = Object.entries(headers).map(([name, header]) => ({
    name: `header: ${name}`,
    change: { signature: header },
  }));
  const flips = [0, 1, 31, 62, 63].map((at) => ({
    name: `header: digit ${at} flipped`,
    change: { signature: `sha256=${flipDigit(hex, at)}` },
  }));
  return [...changed, ...flips];
}

function bodyAttempts(): Negative[] {
  const bodies: Record<string, Uint8Array<ArrayBuffer>> = {
    "last bit flipped": flipBit(utf8(BODY)),
    "line break added": utf8(`${BODY}\n`),
    "byte order mark added": utf8(`\uFEFF${BODY}`),
    "escapes decoded by a JSON round trip": utf8(JSON.stringify(JSON.parse(BODY))),
    "printed with spaces": utf8(JSON.stringify(JSON.parse(BODY), null, 2)),
    "cut short": utf8(BODY).slice(0, -1),
    empty: utf8(""),
    "not UTF-8": new Uint8Array([0xff, 0xfe, 0xfd]),
  };
  return Object.entries(bodies).map(([name, bytes]) => ({
    name: `body: ${name}`,
    change: { bytes },
  }));
}

function secretAttempts(): Negative[] {
  const secrets = [SECRET.slice(0, -1), `${SECRET} `, SECRET.toUpperCase(), "another secret"];
  return secrets.map((secret, index) => ({ name: `secret: wrong ${index}`, change: { secret } }));
}

const verifyCase = (name: string, expect: string, attempt: Attempt): Case => ({
  name,
  expect,
  run: () => verifyHub256(attempt),
});

function flipDigit(hex: string, at: number): string {
  const flipped = (Number.parseInt(hex.charAt(at), 16) ^ 1).toString(16);
  return `${hex.slice(0, at)}${flipped}${hex.slice(at + 1)}`;
}

function flipBit(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return bytes.map((byte, index) => (index === bytes.length - 1 ? byte ^ 1 : byte));
}
