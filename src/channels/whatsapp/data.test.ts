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
    const value = { items: [1234567, { name: "x".repeat(100) }] };
    expect(boundData({ items: [{ n: 1234567890 }] }, 20)).toEqual({ json: null, truncated: true });
    const { json, truncated } = boundData(value, 40);
    expect([json, truncated]).toEqual([`{"items":[1234567,{"name":"${"x".repeat(9)}"}]}`, true]);
  });

  test("keeps what is small beside what is large, wherever it stands", () => {
    const large = "x".repeat(9_000);
    const order = { catalog_id: "1", product_items: [{ name: large, sku: "a" }, { sku: "b" }] };
    const kept = parsed(boundData({ order, referral: { source_id: "7" } }).json) as {
      order: { product_items: { name?: string; sku: string }[] };
    };
    expect(kept).toMatchObject({ referral: { source_id: "7" }, order: { catalog_id: "1" } });
    const [first, second, ...more] = kept.order.product_items;
    expect(more).toEqual([]);
    expect(second).toEqual({ sku: "b" });
    expect(first?.sku).toBe("a");
    expect(large.startsWith(first?.name ?? "-")).toBe(true);
  });

  test("keeps the beginning of a long text, in whole characters, and no half of a short one", () => {
    const { json } = boundData({ id: "7", text: "🦀".repeat(50) }, 60);
    expect(parsed(json)).toEqual({ id: "7", text: "🦀".repeat(10) });
    expect(utf8Bytes(json ?? "")).toBe(60);
    // Escapes are one character for a reader, and are not cut either.
    expect(parsed(boundData({ text: "\n".repeat(50) }, 30).json)).toEqual({ text: "\n".repeat(9) });
    const ids = Object.fromEntries(Array.from("abcdefghij", (key) => [key, key.repeat(20)]));
    const whole = Object.fromEntries(Object.entries(ids).slice(0, 7));
    expect(boundData(ids, 200)).toEqual({ json: JSON.stringify(whole), truncated: true });
  });

  test("keeps the fields in their order, the first of two that are equally large", () => {
    const value = { z: "x".repeat(30), __proto__x: 1, y: "x".repeat(30), b: true };
    expect(boundData(value, 66).json).toBe(`{"z":"${"x".repeat(30)}","__proto__x":1,"b":true}`);
  });

  test("has a key that every object has as any other", () => {
    const value = parsed(`{"__proto__":{"a":1},"text":"${"x".repeat(200)}"}`) as object;
    const { json } = boundData(value as Record<string, unknown>, 40);
    expect(json).toBe('{"__proto__":{"a":1},"text":"xxxxxxxxx"}');
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
        expect(boundData(value, bytesMax)).toEqual({ json, truncated });
      }),
    );
  });

  test("has half a surrogate pair as an escape", () => {
    expect(boundData({ a: "\uD83D" }).json).toBe('{"a":"\\ud83d"}');
    expect(DATA_BYTES_MAX).toBe(8_192);
  });
});
