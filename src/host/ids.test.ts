import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeId, encodeId, idLength } from "./ids";

const random16 = fc.uint8Array({ minLength: 16, maxLength: 16 });
const tableNumber = fc.oneof(
  fc.constantFrom(1, 127, 128, 10_001, 16_383, 16_384, 2 ** 31),
  fc.integer({ min: 1, max: 2 ** 31 }),
);

test("an id gives back the number of its table and has the length of its table", () => {
  fc.assert(
    fc.property(tableNumber, random16, (number, random) => {
      const id = encodeId(number, random);
      expect(decodeId(id)).toEqual({ tableNumber: number });
      expect(id).toHaveLength(idLength(number));
      expect(id).toMatch(/^[0-9a-hjkmnp-tv-z]{31,37}$/);
    }),
  );
});

test("ids of one table sort as their random bytes", () => {
  fc.assert(
    fc.property(random16, random16, (a, b) => {
      const bytes = Buffer.compare(a, b);
      const ids = [encodeId(10_001, a), encodeId(10_001, b)] as const;
      expect(ids[0] < ids[1] ? -1 : ids[0] > ids[1] ? 1 : 0).toBe(bytes);
    }),
  );
});

test("no id with one character changed is an id", () => {
  const id = encodeId(10_001, new Uint8Array(16).fill(7));
  const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
  for (let place = 0; place < id.length; place++) {
    const other = alphabet[(alphabet.indexOf(id.charAt(place)) + 1) % alphabet.length] ?? "";
    expect(decodeId(id.slice(0, place) + other + id.slice(place + 1))).toHaveProperty("error");
  }
});

test.each([
  ["", "Unable to decode ID: Invalid ID length 0"],
  ["x".repeat(38), "Unable to decode ID: Invalid ID length 38"],
  ["u".repeat(32), "Unable to decode ID: ID wasn't valid base32"],
  ["J57".padEnd(32, "0"), "Unable to decode ID: ID wasn't valid base32"],
])("%j is no id", (id, error) => {
  expect(decodeId(id)).toEqual({ error });
});

test.each([
  ["k570e9j5cj1t5gf0zwf3tq3vkawxhqr0", 10_009],
  ["kg204m40v9m1bmkthp86n486mh85s0rc", 540],
  ["m57068j1c1zsxfewzcd3jp3qjttx99vg", 10_017],
])("%s, an id made by the platform, is of table %i", (id, number) => {
  expect(decodeId(id)).toEqual({ tableNumber: number });
});
