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
