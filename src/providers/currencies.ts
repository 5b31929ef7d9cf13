/**
 * Which currency a price is in, by how it is written and the country whose shops were searched.
 * Codes: ISO 4217, list one. Signs: the currency symbols of Unicode CLDR, in English and in the
 * languages of their countries. `Intl` has both, but not which country has which currency, and it
 * differs between the engines that run this.
 */

const CODES: ReadonlySet<string> = new Set(
  (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD " +
    "CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP " +
    "GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD " +
    "KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN " +
    "NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP " +
    "SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES " +
    "VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
  ).split(" "),
);

type ByCountry = ReadonlyMap<string, string>;

/** Countries, separated by spaces, of each currency that is written with one sign. */
function byCountry(countries: Readonly<Record<string, string>>): ByCountry {
  return new Map(
    Object.entries(countries).flatMap(([currency, list]) =>
      list.split(" ").map((country) => [country, currency] as const),
    ),
  );
}

const KRONE = byCountry({ SEK: "SE", NOK: "NO SJ BV", DKK: "DK FO GL", ISK: "IS" });

/** Signs that several currencies have: which one is meant is known by the country alone. */
const SHARED: ReadonlyMap<string, ByCountry> = new Map(
  Object.entries({
    $: byCountry({
      USD: "US AS BQ EC FM GU IO MH MP PA PR PW SV TC TL UM VG VI",
      AUD: "AU CC CX HM KI NF NR TV",
      NZD: "NZ CK NU PN TK",
      XCD: "AG AI DM GD KN LC MS VC",
      ARS: "AR",
      BBD: "BB",
      BMD: "BM",
      BND: "BN",
      BSD: "BS",
      BZD: "BZ",
      CAD: "CA",
      CLP: "CL",
      COP: "CO",
      CUP: "CU",
      CVE: "CV",
      DOP: "DO",
      FJD: "FJ",
      GYD: "GY",
      HKD: "HK",
      JMD: "JM",
      KYD: "KY",
      LRD: "LR",
      MOP: "MO",
      MXN: "MX",
      NAD: "NA",
      SBD: "SB",
      SGD: "SG",
      SRD: "SR",
      TOP: "TO",
      TTD: "TT",
      TWD: "TW",
      UYU: "UY",
      WST: "WS",
    }),
    "£": byCountry({
      GBP: "GB UK GG IM JE GS",
      EGP: "EG",
      FKP: "FK",
      GIP: "GI",
      LBP: "LB",
      SHP: "SH",
      SSP: "SS",
      SYP: "SY",
    }),
    "¥": byCountry({ JPY: "JP", CNY: "CN" }),
    元: byCountry({ CNY: "CN", TWD: "TW", HKD: "HK", MOP: "MO" }),
    kr: KRONE,
    Kr: KRONE,
    Rs: byCountry({ INR: "IN", LKR: "LK", MUR: "MU", NPR: "NP", PKR: "PK", SCR: "SC" }),
    Fr: byCountry({ CHF: "CH LI" }),
    C$: byCountry({ CAD: "CA", NIO: "NI" }),
    B$: byCountry({ BND: "BN", BSD: "BS" }),
    R: byCountry({ ZAR: "ZA" }),
    Q: byCountry({ GTQ: "GT" }),
    L: byCountry({ HNL: "HN", MDL: "MD" }),
    lei: byCountry({ RON: "RO", MDL: "MD" }),
    Bs: byCountry({ BOB: "BO", VES: "VE" }),
    Br: byCountry({ BYN: "BY", ETB: "ET" }),
  }),
);

/** Signs that one currency has, wherever they stand. The letters of one with a symbol are capitals. */
const OWN: ReadonlyMap<string, string> = new Map(
  Object.entries({
    A$: "AUD",
    CI$: "KYD",
    COL$: "COP",
    EC$: "XCD",
    G$: "GYD",
    J$: "JMD",
    L$: "LRD",
    MOP$: "MOP",
    N$: "NAD",
    NT$: "TWD",
    R$: "BRL",
    RD$: "DOP",
    S$: "SGD",
    SI$: "SBD",
    T$: "TOP",
    U$S: "USD",
    $U: "UYU",
    "E£": "EGP",
    "€": "EUR",
    "₹": "INR",
    "₩": "KRW",
    "₽": "RUB",
    "₺": "TRY",
    TL: "TRY",
    "₴": "UAH",
    "₪": "ILS",
    "₫": "VND",
    đ: "VND",
    "฿": "THB",
    "₱": "PHP",
    "₦": "NGN",
    "₵": "GHS",
    "GH₵": "GHS",
    "₡": "CRC",
    "₲": "PYG",
    "₸": "KZT",
    "₮": "MNT",
    "₭": "LAK",
    "៛": "KHR",
    "₾": "GEL",
    "₼": "AZN",
    "֏": "AMD",
    "৳": "BDT",
    円: "JPY",
    zł: "PLN",
    zl: "PLN",
    NIS: "ILS",
    RMB: "CNY",
    Dhs: "AED",
    Kč: "CZK",
    Ft: "HUF",
    SFr: "CHF",
    Rp: "IDR",
    RM: "MYR",
    "S/": "PEN",
    "B/": "PAB",
    KSh: "KES",
    Ksh: "KES",
    TSh: "TZS",
    USh: "UGX",
  }),
);

/** Names that shops write beside a sign. Other codes of countries are words too, such as `TO`. */
const COUNTRIES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    US: "USD",
    USA: "USD",
    AU: "AUD",
    AUS: "AUD",
    CA: "CAD",
    CAN: "CAD",
    CDN: "CAD",
    CN: "CNY",
    HK: "HKD",
    JM: "JMD",
    JP: "JPY",
    MEX: "MXN",
    MX: "MXN",
    NT: "TWD",
    NZ: "NZD",
    SG: "SGD",
    TW: "TWD",
    UK: "GBP",
  }),
);

/** Codes that are English words, and whose currency has a dollar sign: `TOP $10`. */
const WORD_CODES: ReadonlySet<string> = new Set(["CUP", "MOP", "TOP"]);

/** Words around a price that say nothing of its currency, though they be in capitals. */
const SAYS_NOTHING: ReadonlySet<string> = new Set(
  "FROM NOW WAS ONLY EACH EA PER PLUS SALE PRICE INC INCL EXCL TAX GST VAT MWST AB DESDE 税込 税抜 起".split(
    " ",
  ),
);
/** In small letters a word says nothing either, but for these. */
const SAYS_SOMETHING =
  /^(dollar|peso|euro|pound|rupee|franc|real|reais|yen|yuan|won|kron(a|e|er|or)|.*(ian|ish|ese|ican|ean))s?$/;

/** Longer texts are no prices. */
const PRICE_CHARS_MAX = 80;

/** What one part of a price says of its currency. */
interface Meaning {
  /** The currencies that it may be. */
  readonly options: readonly string[];
  /** The one that it is in the country asked about; null where that country has another sign. */
  readonly local: string | null;
}

/** What the reading of one part depends on beside its text. */
interface Place {
  readonly country: string;
  /** Whether there is a symbol of a currency in the price. */
  readonly isBesideSymbol: boolean;
}

/** Letters that are not understood may name any currency, so that none is certain. */
const UNKNOWN: Meaning = { options: [], local: null };

/**
 * The currency of a price such as `MX$1,299.00`, as its code; null where the text and the country do
 * not settle it, or where parts of the text contradict each other or are not understood. A country
 * has two letters, of either case.
 */
export function currencyOf(price: string, country: string): string | null {
  if (price.length > PRICE_CHARS_MAX) return null;
  const text = firstPrice(price);
  const place = { country: country.toUpperCase(), isBesideSymbol: /\p{Sc}/u.test(text) };
  const between = text.split(AMOUNT).map((marks) => meaningsOf(marks, place));
  const currency = agreed(between.flat());
  const own = between.find((meanings) => meanings.length > 0) ?? [];
  // Of several amounts the first one counts, and another's marks may look like its own.
  return between.length <= 2 || agreed(own) === currency ? currency : null;
}

const AMOUNT = /\d(?:[\d\s.,'’]*\d)?/;

/** The text up to where a second amount begins, with plain signs in place of full-width ones. */
function firstPrice(price: string): string {
  const text = price.normalize("NFKC").replace(/[([]([^()[\]\d]*)[)\]]/g, " $1 ");
  return /^\D*\d[^([/|;+]*(?=[([/|;+].*\d)/s.exec(text)?.[0] ?? text;
}

function agreed(meanings: readonly Meaning[]): string | null {
  const [first, ...others] = meanings;
  if (first === undefined) return null;
  const common = first.options.filter((one) =>
    others.every(({ options }) => options.includes(one)),
  );
  if (common.length === 1) return common[0] ?? null;
  return meanings.find(({ local }) => local !== null && common.includes(local))?.local ?? null;
}

function meaningsOf(text: string, place: Place): Meaning[] {
  return text
    .split(/\s+/)
    .flatMap((part) => signsOf(part.replace(/[^\p{L}\p{Sc}/]/gu, "")))
    .map((sign) => meaningOf(sign, place))
    .filter((meaning) => meaning !== null);
}

/** The signs of one part, such as `US$` and `kg` of `us$/kg`, or `MXN` and `$` of `MXN$`. */
function signsOf(part: string): string[] {
  // Letters beside a symbol come in either case.
  const sign = /\p{Sc}/u.test(part) ? part.toUpperCase() : part;
  if (OWN.has(sign) || SHARED.has(sign) || abroad(sign) !== undefined) return [sign];
  if (sign.includes("/")) return part.split("/").flatMap(signsOf);
  return sign.match(/\p{Sc}|\p{L}+/gu) ?? [];
}

function meaningOf(sign: string, { country, isBesideSymbol }: Place): Meaning | null {
  const own = OWN.get(sign) ?? abroad(sign);
  if (own !== undefined) return one(own);
  const shared = SHARED.get(sign);
  if (shared !== undefined) return sharedMeaning(sign, shared, country);
  const named = COUNTRIES.get(sign);
  if (named !== undefined && isBesideSymbol) return one(named);
  const code = sign.toUpperCase();
  if (WORD_CODES.has(code) && SHARED.get("$")?.get(country) !== code) return UNKNOWN;
  if (CODES.has(code)) return one(code);
  return saysNothing(sign) ? null : UNKNOWN;
}

function sharedMeaning(sign: string, shared: ByCountry, country: string): Meaning {
  const local = shared.get(country) ?? null;
  // A sign of letters may be a word or a unit, such as the `L` of litres, where it is no currency.
  if (local === null && /^\p{L}+$/u.test(sign)) return UNKNOWN;
  return { options: [...new Set(shared.values())], local };
}

/** A shared sign with its country before it, such as `AU$` or `CN¥`. */
function abroad(sign: string): string | undefined {
  const [, country = "", shared = ""] = /^([A-Z]{2})(\p{Sc})$/u.exec(sign) ?? [];
  return SHARED.get(shared)?.get(country);
}

function saysNothing(word: string): boolean {
  if (SAYS_NOTHING.has(word.toUpperCase())) return true;
  const isSmall = /^[a-zß-öø-ÿ]{2,}$/.test(word);
  return isSmall && !COUNTRIES.has(word.toUpperCase()) && !SAYS_SOMETHING.test(word);
}

const one = (currency: string): Meaning => ({ options: [currency], local: currency });
