import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { currencyOf } from "./currencies";

test.each([
  ["MX", "MXN"],
  ["CA", "CAD"],
  ["AU", "AUD"],
  ["AR", "ARS"],
  ["CL", "CLP"],
  ["CO", "COP"],
  ["HK", "HKD"],
  ["SG", "SGD"],
  ["NZ", "NZD"],
  ["TW", "TWD"],
  ["JM", "JMD"],
  ["US", "USD"],
  ["PR", "USD"],
  ["EC", "USD"],
  ["mx", "MXN"],
])("a plain dollar sign in %s is %s", (country, currency) => {
  expect(currencyOf("$1,299.00", country)).toBe(currency);
  expect(currencyOf("1.299,00 $", country)).toBe(currency);
});

test.each(["GB", "DE", "JP", "BR", "SE", "XX", "", "constructor"])(
  "a plain dollar sign in %j is nobody's",
  (country) => {
    expect(currencyOf("$1,299.00", country)).toBeNull();
  },
);

test.each([
  ["US$12", "USD"],
  ["U$S 12", "USD"],
  ["R$ 1.299,00", "BRL"],
  ["HK$1,299", "HKD"],
  ["NT$1,299", "TWD"],
  ["MX$1,299.00", "MXN"],
  ["CA$12.50", "CAD"],
  ["AU$12.50", "AUD"],
  ["A$12.50", "AUD"],
  ["NZ$12.50", "NZD"],
  ["S$12.50", "SGD"],
  ["SG$12.50", "SGD"],
  ["J$1,299", "JMD"],
  ["CN¥1,299", "CNY"],
  ["JP¥1,299", "JPY"],
  ["€210.00", "EUR"],
  ["210,00 €", "EUR"],
  ["210,00\u00a0€", "EUR"],
  ["₹1,299.00", "INR"],
  ["₩12,000", "KRW"],
  ["￦12,000", "KRW"],
  ["1.299,00 zł", "PLN"],
  ["1 299 Kč", "CZK"],
  ["12 990 Ft", "HUF"],
  ["CHF 12.–", "CHF"],
  ["CHF12.90", "CHF"],
  ["S/ 12.90", "PEN"],
  ["S/.12.90", "PEN"],
  ["RM12.90", "MYR"],
  ["Rp 129.000", "IDR"],
  ["₺1.299,00", "TRY"],
  ["\u200f1,299.00 ₪", "ILS"],
  ["MXN 1,299.00", "MXN"],
  ["1,299.00 MXN", "MXN"],
  ["MXN1,299.00", "MXN"],
  ["MXN$1,299.00", "MXN"],
  ["$1,299.00 MXN", "MXN"],
  ["USD $12.00", "USD"],
  ["$12.00 CAD", "CAD"],
  ["AED 45.00", "AED"],
  ["KWD 4.500", "KWD"],
])("%s is %s wherever it is found", (price, currency) => {
  for (const country of ["US", "MX", "DE", "JP", ""])
    expect(currencyOf(price, country)).toBe(currency);
});

test.each([
  ["¥1,299", "JP", "JPY"],
  ["￥1,299", "JP", "JPY"],
  ["¥1,299", "CN", "CNY"],
  ["¥1,299", "US", null],
  ["£89.00", "GB", "GBP"],
  ["£89.00", "uk", "GBP"],
  ["£89.00", "EG", "EGP"],
  ["£89.00", "US", null],
  ["1 299 kr", "SE", "SEK"],
  ["1.299 kr.", "DK", "DKK"],
  ["kr 1 299,00", "NO", "NOK"],
  ["12.990 kr.", "IS", "ISK"],
  ["1 299 kr", "DE", null],
  ["1 299 kr/st", "SE", "SEK"],
  ["Rs. 1,299", "PK", "PKR"],
  ["₨1,299", "IN", "INR"],
  ["R 1 299,00", "ZA", "ZAR"],
  ["R1,299.00", "ZA", "ZAR"],
  ["C$1,299.00", "CA", "CAD"],
  ["C$1,299.00", "NI", "NIO"],
  ["C$1,299.00", "US", null],
  ["$10/mo", "US", "USD"],
  ["From $12.00", "MX", "MXN"],
  ["$12.00 - $20.00", "CA", "CAD"],
  ["$12.00 now", "US", "USD"],
  ["$12.00 / 1 L", "US", "USD"],
])("%s in %s is %s", (price, country, currency) => {
  expect(currencyOf(price, country)).toBe(currency);
});

test.each([
  "",
  "1,299.00",
  "free",
  "€12 USD",
  "ZZZ 12",
  "CUC$12",
  "constructor 12",
  "toString",
  "¤12",
])("%j says nothing that is certain", (price) => {
  expect(currencyOf(price, "US")).toBeNull();
});

test.each([
  ["US $10.00", "USD"],
  ["$12 US", "USD"],
  ["U.S. $12", "USD"],
  ["USA $12", "USD"],
  ["10 $ US", "USD"],
  ["$US 10", "USD"],
  ["US-$ 10", "USD"],
  ["us$10", "USD"],
  ["NZ $10", "NZD"],
  ["AU $10.00", "AUD"],
  ["MX $10", "MXN"],
  ["SG $10", "SGD"],
  ["HK $10", "HKD"],
  ["CA $10", "CAD"],
  ["CAN $10", "CAD"],
  ["CDN $10", "CAD"],
  ["$12 CDN", "CAD"],
  ["$12 CAN", "CAD"],
  ["$10 CA", "CAD"],
  ["Cdn$10", "CAD"],
  ["Mex$10", "MXN"],
  ["UK £10", "GBP"],
  ["usd 10", "USD"],
  ["10 eur", "EUR"],
  ["$10 cad", "CAD"],
  ["10 NIS", "ILS"],
  ["RMB 10", "CNY"],
  ["Dhs 10", "AED"],
  ["10 zl", "PLN"],
  ["$10 (CAD)", "CAD"],
  ["US$8 ($10)", "USD"],
  ["10 USD - 20 USD", "USD"],
  ["10-20 USD", "USD"],
])("%s is %s, whichever sign the country has", (price, currency) => {
  for (const country of ["us", "ca", "au", "mx", "sg", "nz", "de", "gb", "eg", "jp"])
    expect([country, currencyOf(price, country)]).toEqual([country, currency]);
});

test.each([
  "C $10.00",
  "S $10",
  "A $10",
  "c $10",
  "us $10",
  "$10 can",
  "XY $10",
  "XYZ$10",
  "$10 XY",
  "$10K",
  "$10 pesos",
  "$10 euros",
  "$10 Canadian",
  "$10 canadian",
  "10 US",
  "TOP 10",
  "TOP $10",
  "MOP $10",
  "CUP $10",
  "top $10",
  "ALL $10",
  "USD€10",
  "X€10",
  "Fr $10",
  "$10 €8",
  "$10 - $20 CLP",
])("letters beside a sign that are not understood leave %j open", (price) => {
  for (const country of ["us", "mx", "ca", "de"])
    expect([country, currencyOf(price, country)]).toEqual([country, null]);
});

test.each([
  ["$10 (US$8)", "mx", "MXN"],
  ["$10 (€8)", "mx", "MXN"],
  ["$10 / €8", "mx", "MXN"],
  ["$10 US$8", "mx", null],
  ["10 $ 8 US$", "mx", null],
  ["$10 + US$5", "ca", "CAD"],
  ["$10 $8", "ca", "CAD"],
  ["$10 + tax", "ca", "CAD"],
  ["FROM $10 each", "ca", "CAD"],
  ["$10 (inc GST)", "au", "AUD"],
  ["From $10/mo", "us", "USD"],
  ["Now $10.00 was $12.00", "au", "AUD"],
  ["$10 EA", "us", "USD"],
  ["¥1,299 (税込)", "jp", "JPY"],
  ["Rs.1,299/-", "in", "INR"],
  ["TOP $10", "to", "TOP"],
  ["MOP 10", "mo", "MOP"],
  ["CUP $10", "cu", "CUP"],
])("%s in %s is %s, by the first amount's own marks", (price, country, currency) => {
  expect(currencyOf(price, country)).toBe(currency);
});

const DOLLARS: readonly (readonly [country: string, currency: string])[] = [
  ["US", "USD"],
  ["CA", "CAD"],
  ["AU", "AUD"],
  ["NZ", "NZD"],
  ["MX", "MXN"],
  ["SG", "SGD"],
  ["HK", "HKD"],
  ["TW", "TWD"],
];
const AMOUNTS = ["10", "1,299.00", "1.299,00"];
const WORDS = ["", " now", " + tax", "/mo", " each"];

test("each way of a country to write its own price is its currency", () => {
  const ways = (country: string, code: string, amount: string) => [
    `$${amount}`,
    `$ ${amount}`,
    `${amount} $`,
    `From $${amount}`,
    ...[country, code].flatMap((name) => [
      `${name}$${amount}`,
      `${name} $${amount}`,
      `$${name} ${amount}`,
      `$${amount} ${name}`,
      `${amount} $ ${name}`,
    ]),
    `${code} ${amount}`,
    `${amount} ${code.toLowerCase()}`,
  ];
  for (const [country, code] of DOLLARS)
    for (const amount of AMOUNTS)
      for (const word of WORDS)
        for (const way of ways(country, code, amount))
          expect([`${way}${word}`, currencyOf(`${way}${word}`, country)]).toEqual([
            `${way}${word}`,
            code,
          ]);
});

test("a dollar price with any letters of another country is never in the country's own", () => {
  const letters = fc.oneof(
    fc.stringMatching(/^[A-Z]{1,4}$/),
    fc.stringMatching(/^[A-Z]\.[A-Z]\.$/),
    fc.constantFrom(...DOLLARS.flat(), "CDN", "CAN", "C", "A", "S", "NT", "aud", "usd"),
  );
  const ways = fc.constantFrom(
    (mark: string) => `${mark}$10`,
    (mark: string) => `${mark} $10`,
    (mark: string) => `${mark}-$10`,
    (mark: string) => `$${mark} 10`,
    (mark: string) => `$10 ${mark}`,
    (mark: string) => `$10 (${mark})`,
    (mark: string) => `10 $ ${mark}`,
    (mark: string) => `10$${mark} now`,
  );
  // What names the dollar of Jamaica, and what names none.
  const understood = new Set(
    "JM JMD J EA AB INC EXCL MWST NOW TAX GST VAT WAS PER FROM EACH ONLY PLUS SALE INCL".split(" "),
  );
  fc.assert(
    fc.property(letters, ways, (mark, way) => {
      fc.pre(!understood.has(mark.replaceAll(".", "")));
      expect(currencyOf(way(mark), "JM")).not.toBe("JMD");
    }),
    { numRuns: 2_000 },
  );
});

test("a long text is no price", () => {
  expect(currencyOf(`$12${" ".repeat(77)}`, "US")).toBe("USD");
  expect(currencyOf(`$12${" ".repeat(78)}`, "US")).toBeNull();
});

describe("any text", () => {
  test("is some currency's code or null", () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.constant("$".repeat(500)));
    fc.assert(
      fc.property(text, fc.string(), (price, country) => {
        expect(currencyOf(price, country) ?? "XXX").toMatch(/^[A-Z]{3}$/);
      }),
    );
  });
});
