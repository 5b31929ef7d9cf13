import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorData } from "../errors/appError";
import { canonicalAddress, clientOf } from "./clientAddress";

const seen = (forwarded: string | null, hops = "0", ip: string | null = "203.0.113.7") =>
  clientOf(
    { ip, headers: new Headers(forwarded === null ? {} : { "x-forwarded-for": forwarded }) },
    { TRUSTED_PROXY_HOPS: hops },
  );

describe("who is calling", () => {
  test("without a header it is what the platform saw", () => {
    expect(seen(null)).toMatchObject({ address: "203.0.113.7", verified: "direct" });
    expect(seen(null).key).toMatch(/^address:\d+$/);
  });

  test("a header that nobody vouches for makes no key, however often it changes", () => {
    for (let i = 0; i < 300; i++) {
      const client = seen(`198.51.100.${i % 256}`, "0", `198.51.100.${i % 256}`);
      expect([client.verified, client.key]).toEqual(["unverified", undefined]);
    }
    const other = clientOf(
      { ip: "203.0.113.7", headers: new Headers({ "cf-connecting-ip": "198.51.100.9" }) },
      {},
    );
    expect(other).toMatchObject({ address: "203.0.113.7", verified: "direct" });
  });

  test("with trusted hops it is that value from the right, whatever was put to the left", () => {
    const forged = "10.0.0.1, 192.0.2.99, 198.51.100.7, 203.0.113.50";
    expect(seen(forged, "1").address).toBe("203.0.113.50");
    expect(seen(forged, "2").address).toBe("198.51.100.7");
    expect(seen(forged, "2").verified).toBe("trusted");
  });

  test("too few values, or none, or no address there is a claim", () => {
    for (const [header, hops] of [
      ["203.0.113.50", "2"],
      [null, "1"],
      ["unknown", "1"],
      ["203.0.113.50, ", "1"],
      ["1.1.1.1,".repeat(2_000) + "2.2.2.2", "1"],
    ] as const) {
      const client = seen(header, hops);
      expect([client.address, client.verified, client.key]).toEqual([
        null,
        "unverified",
        undefined,
      ]);
    }
  });

  test("hops that are not valid are misconfigured, never zero", () => {
    let code = "none";
    try {
      seen(null, "two");
    } catch (error) {
      ({ code } = errorData(error));
    }
    expect(code).toBe("misconfigured");
  });

  test("a platform without an address tells none", () => {
    expect(seen(null, "0", null)).toMatchObject({ address: null, verified: "unverified" });
  });
});

describe("addresses", () => {
  test.each([
    ["203.0.113.7", "203.0.113.7"],
    ["203.0.113.7:4711", "203.0.113.7"],
    ["[2001:DB8::1]:443", "2001:db8:0:0:0:0:0:1"],
    ["2001:db8::1%eth0", "2001:db8:0:0:0:0:0:1"],
    ["::", "0:0:0:0:0:0:0:0"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["1::", "1:0:0:0:0:0:0:0"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"],
    ["::ffff:203.0.113.7", "203.0.113.7"],
    ["::ffff:cb00:7107", "203.0.113.7"],
    ["64:ff9b::192.0.2.33", "64:ff9b:0:0:0:0:c000:221"],
  ])("%s is %s", (text, address) => {
    expect(canonicalAddress(text)).toBe(address);
  });

  test.each([
    "",
    "256.1.1.1",
    "01.2.3.4",
    "1.2.3",
    "1.2.3.4.5",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::8",
    "12345::",
    "1.2.3.4::",
    "g::1",
    "localhost",
    "_hidden",
    "::1.2.3.4.5",
  ])("%j is none", (text) => {
    expect(canonicalAddress(text)).toBeNull();
  });

  test("one subscriber is one key, and all keys are few", () => {
    const key = (ip: string) => seen(null, "0", ip).key;
    expect(key("2001:db8:1:2::1")).toBe(key("2001:db8:1:2:ffff::9"));
    expect(key("2001:db8:1:2::1")).not.toBe(key("2001:db8:1:3::1"));
    const keys = new Set<string | undefined>();
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV6(), (v4, v6) => {
        for (const ip of [v4, v6]) {
          const { key: found } = clientOf(
            { ip, headers: new Headers() },
            { RATE_LIMIT_ADDRESS_KEYS_MAX: "16" },
          );
          expect(found).toBeDefined();
          keys.add(found);
        }
      }),
    );
    expect(keys.size).toBeLessThanOrEqual(16);
  });

  test("no text breaks the reader", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const address = canonicalAddress(text);
        if (address !== null) expect(canonicalAddress(address)).toBe(address);
      }),
    );
  });
});
