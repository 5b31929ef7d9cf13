import { expect, test } from "vitest";
import { utf8Bytes } from "./bytes";

test.each([
  ["", 0],
  ["abc", 3],
  ["é", 2],
  ["語", 3],
  ["🚀", 4],
])("%j is %i bytes", (text, bytes) => {
  expect(utf8Bytes(text)).toBe(bytes);
});
