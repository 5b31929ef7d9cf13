import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { utf8Bytes } from "../../core/bytes";
import { boundData, DATA_BYTES_MAX } from "./data";

const parsed = (json: string | null): unknown => (json === null ? null : JSON.parse(json));

describe("bounding data", () => {
  test("keeps what fits, to the byte", () => {
    const value = { a: "é" };
    const whole = JSON.stringify(value);
    const bytes = utf8Bytes(whole);
    expect(boundData(value, bytes)).toEqual({ json: whole, truncated: false });
    expect(boundData(value, bytes - 1)).toEqual({ json: null, truncated: true });
  });

  test("keeps the first items of the largest list whole, and everything beside it", () => {
    const value = { a: { few: [1], many: ["xx", "yy", "zz"] }, b: 1 };
    const two = JSON.stringify({ a: { few: [1], many: ["xx", "yy"] }, b: 1 });
    expect(boundData(value, utf8Bytes(two) + 1)).toEqual({ json: two, truncated: true });
  });

  test("never keeps a list of nothing, which would say that there was nothing", () => {
    const value = { items: [{ name: "x".repeat(100) }] };
    expect(boundData(value, 50)).toEqual({ json: null, truncated: true });
  });

  test("measures a list with all that is in it, and takes nothing out of its items", () => {
    const value = { contacts: [{ phones: ["1", "2", "3"] }, { phones: ["4"] }] };
    const one = JSON.stringify({ contacts: [{ phones: ["1", "2", "3"] }] });
    expect(boundData(value, utf8Bytes(one) + 1)).toEqual({ json: one, truncated: true });
  });

  test("is an order of 70 items, each as a catalogue names it", () => {
    const item = {
      product_retailer_id: "sku-0000000001",
      quantity: 1,
      item_price: 12.5,
      currency: "JMD",
    };
    const order = { catalog_id: "194836987003835", product_items: Array(70).fill(item) };
    expect(boundData({ order }).truncated).toBe(false);
  });

  test("of any JSON fits, is well-formed, and is the whole where it says so", () => {
    const anyData = fc.dictionary(fc.string(), fc.jsonValue({ noUnicodeString: false }));
    fc.assert(
      fc.property(anyData, fc.nat(200), (value, bytesMax) => {
        const { json, truncated } = boundData(value, bytesMax);
        expect(utf8Bytes(json ?? "")).toBeLessThanOrEqual(bytesMax);
        expect(json ?? "").not.toMatch(/\p{Surrogate}/u);
        if (!truncated) expect(json).toBe(JSON.stringify(value));
        else expect(utf8Bytes(JSON.stringify(value))).toBeGreaterThan(bytesMax);
        expect(() => parsed(json)).not.toThrow();
      }),
    );
  });

  test("has half a surrogate pair as an escape", () => {
    expect(boundData({ a: "\uD83D" }).json).toBe('{"a":"\\ud83d"}');
    expect(DATA_BYTES_MAX).toBe(8_192);
  });
});
