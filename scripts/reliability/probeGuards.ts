/** How each guard is made to refuse. */
import type { ErrorCode } from "../../src/errors/table";
import { allowedMethods } from "../../src/http/routes";
import type { Sent } from "./exchange";
import { FORGED } from "./probeCredentials";
import {
  FOREIGN_ORIGIN,
  JSON_TYPE,
  type Planned,
  refusedAs,
  request,
  type Setting,
  signed,
  sound,
  withQuery,
} from "./probeParts";
import { refusedText } from "./sample";

/** The probes of one guard; a guard that nobody knows is a probe that fails. */
export function probesOfGuard(
  name: string,
  refuses: readonly ErrorCode[],
  setting: Setting,
): readonly Planned[] {
  const kind = name.startsWith("signature ") ? "signature" : name;
  const make = Object.hasOwn(GUARDS, kind) ? GUARDS[kind] : undefined;
  if (make !== undefined) return make(setting, name);
  const [code = "internal_error"] = refuses;
  const title = `with what its guard "${name}" refuses`;
  return [
    setting.probe({
      guard: name,
      variant: "unknown",
      title,
      sent: null,
      expected: refusedAs(code),
    }),
  ];
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

const GUARDS: Readonly<Record<string, (setting: Setting, name: string) => readonly Planned[]>> = {
  method: ({ row, probe }, guard) =>
    METHODS.filter((method) => !allowedMethods(row.path).includes(method)).map((method) =>
      probe({
        guard,
        variant: method,
        title: `as ${method}`,
        sent: { method, path: row.path, headers: {}, body: null },
        expected: refusedAs("method_not_allowed", { allow: allowedMethods(row.path).join(", ") }),
      }),
    ),

  origin: ({ row, probe }, guard) => [
    probe({
      guard,
      variant: "foreign",
      title: "from a page of another origin",
      sent: request(row, { headers: { origin: FOREIGN_ORIGIN } }),
      expected: refusedAs("forbidden", { "access-control-allow-origin": null, vary: /Origin/ }),
    }),
  ],

  "media type": ({ row, probe }, guard) =>
    [
      ["missing", "without a content type", {}],
      ["text", "as text", { "content-type": "text/plain" }],
      ["compressed", "compressed", { ...JSON_TYPE, "content-encoding": "gzip" }],
    ].map(([variant, title, headers]) =>
      probe({
        guard,
        variant: variant as string,
        title: title as string,
        sent: request(row, { headers: headers as Sent["headers"], body: "{}" }),
        expected: refusedAs("unsupported_media_type"),
      }),
    ),

  "body bytes": ({ row, probe }, guard) =>
    [false, true].map((chunked) =>
      probe({
        guard,
        variant: chunked ? "counted" : "declared",
        title: `with a byte too many, ${chunked ? "counted" : "declared"}`,
        sent: {
          ...request(row, { headers: JSON_TYPE, body: "x".repeat(row.bodyBytesMax + 1) }),
          chunked,
        },
        expected: refusedAs("payload_too_large"),
      }),
    ),

  signature: ({ row, probe }, guard) => {
    const forged = row.auth.kind === "signature" ? FORGED[row.auth.scheme] : undefined;
    const variants = [
      { variant: "missing", title: "without a signature", headers: {} },
      ...(forged === undefined
        ? []
        : [{ variant: "forged", title: "with a forged signature", headers: forged }]),
    ];
    return variants.map(({ headers, ...part }) =>
      probe({
        guard,
        ...part,
        sent: request(row, { headers: { ...JSON_TYPE, ...headers }, body: "{}" }),
        expected: refusedAs("forbidden"),
      }),
    );
  },

  JSON: ({ row, probe, credentials }, guard) =>
    [
      ["broken", "with broken JSON", "{"],
      ["reserved", "with a reserved key", '{"__proto__":{}}'],
    ].map(([variant = "", title = "", body = ""]) =>
      probe({
        guard,
        variant,
        title,
        sent: signed(row, body, credentials),
        expected: refusedAs("invalid_json"),
      }),
    ),

  contract: ({ row, probe, credentials }, guard) => {
    const expected = refusedAs("invalid_request");
    const parts: Planned[] = [];
    if (row.body !== null) {
      const body = refusedText(row.body);
      const sent = body === null ? null : signed(row, body, credentials);
      parts.push(probe({ guard, variant: "body", title: "with another body", sent, expected }));
    }
    if (row.query !== null) {
      const [name = "x"] = Object.keys(row.query.shape);
      const sent = withQuery(row, `${name}=1&${name}=2`, credentials);
      const title = "with a parameter given twice";
      parts.push(probe({ guard, variant: "query", title, sent, expected }));
    }
    return parts;
  },

  identity: ({ row, probe }, guard) =>
    [
      { variant: "missing", title: "without a token", token: null, says: "Bearer" },
      {
        variant: "forged",
        title: "with a forged token",
        token: "probe.invalid.token",
        says: 'Bearer error="invalid_token"',
      },
    ].map(({ token, says, ...part }) => {
      const headers = token === null ? {} : { authorization: `Bearer ${token}` };
      const sent = sound(row, headers);
      const expected = refusedAs("unauthorized", { "www-authenticate": says });
      return probe({ guard, ...part, sent, expected });
    }),

  token: ({ row, probe }, guard) => [
    probe({
      guard,
      variant: "wrong",
      title: "with a wrong token",
      sent: sound(row, {}, { whole: true }),
      expected: refusedAs("forbidden"),
    }),
  ],
};
