import fc from "fast-check";
import { expect, test } from "vitest";
import { continueTrace, randomHex, requestIdOf } from "./traceparent";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";
const hex = (bytes: number): string => "ab".repeat(bytes);
const OURS = hex(16);

test.each([
  [`00-${TRACE}-${SPAN}-01`, TRACE, "01"],
  [`00-${TRACE}-${SPAN}-00`, TRACE, "00"],
  [`00-${TRACE}-${SPAN}-ff`, TRACE, "01"],
  // A later version may say more than this one knows.
  [`cc-${TRACE}-${SPAN}-01-what-the-future-holds`, TRACE, "01"],
  [`cc-${TRACE}-${SPAN}-01`, TRACE, "01"],
  [`00-${TRACE}-${SPAN}-01-more`, OURS, "01"],
  [`ff-${TRACE}-${SPAN}-01`, OURS, "01"],
  [`00-${"0".repeat(32)}-${SPAN}-01`, OURS, "01"],
  [`00-${TRACE}-${"0".repeat(16)}-01`, OURS, "01"],
  [`00-${TRACE.toUpperCase()}-${SPAN}-01`, OURS, "01"],
  [`00-${TRACE}-${SPAN}-1`, OURS, "01"],
  [`00-${TRACE}-${SPAN}`, OURS, "01"],
  [`00-${TRACE}-${SPAN}-01, 00-${TRACE}-${SPAN}-01`, OURS, "01"],
  ["", OURS, "01"],
  [null, OURS, "01"],
])("%s", (header, traceId, flags) => {
  expect(continueTrace(header, hex)).toEqual({
    traceId,
    traceparent: `00-${traceId}-${hex(8)}-${flags}`,
  });
});

test("whatever comes in, what goes out is valid and is taken again", () => {
  fc.assert(
    fc.property(fc.option(fc.string({ unit: "binary" })), (header) => {
      const first = continueTrace(header, randomHex);
      expect(first.traceparent).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
      expect(continueTrace(first.traceparent, randomHex).traceId).toBe(first.traceId);
      expect(requestIdOf(header, randomHex)).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
    }),
  );
});

test("an unlucky draw is no id of zeros", () => {
  const zeros = (bytes: number): string => "00".repeat(bytes);
  const { traceparent } = continueTrace(null, zeros);
  expect(traceparent).toBe(`00-${"0".repeat(31)}1-${"0".repeat(15)}1-01`);
});
