/**
 * What WhatsApp users send besides texts, as Meta's messages webhook reference shows it: the kind
 * and, under the kind's name, its own data. Each value is one of ours.
 */
import { UserError } from "./deployment";
import { parseJson } from "./json";

/** The fields of a message that depend on its kind. */
export type MessageContent = { readonly type: string } & Readonly<Record<string, unknown>>;

export const textMessage = (body: string): MessageContent => ({ type: "text", text: { body } });

/** Options of the command line that make another message of its text, and what each takes. */
export const MESSAGE_OPTIONS = {
  edit: "<message id>",
  revoke: "<message id>",
  react: "<message id>",
  location: "<latitude>,<longitude>",
  order: "<sku>:<quantity>,...",
  flow: "<answers as JSON>",
} as const;

type MessageOption = keyof typeof MESSAGE_OPTIONS;
export type MessageChoice = Partial<Record<MessageOption, string | undefined>>;

const MAKERS: Readonly<Record<MessageOption, (given: string, text: string) => MessageContent>> = {
  edit: (original, body) => ({
    type: "edit",
    edit: { original_message_id: original, message: textMessage(body) },
  }),
  revoke: (original) => ({ type: "revoke", revoke: { original_message_id: original } }),
  // Without an emoji it removes the reaction, and Meta sends none.
  react: (original, emoji) => ({
    type: "reaction",
    reaction: { message_id: original, ...(emoji === "" ? {} : { emoji }) },
  }),
  location: (place, name) => ({ type: "location", location: { ...pointOf(place), name } }),
  order: (items, text) => ({
    type: "order",
    order: { catalog_id: "194836987003835", text, product_items: itemsOf(items) },
  }),
  flow: (answers) => ({
    type: "interactive",
    interactive: {
      type: "nfm_reply",
      nfm_reply: { response_json: answersOf(answers), body: "Sent", name: "flow" },
    },
  }),
};

/** Options that say all there is to say. */
const WITHOUT_TEXT: readonly MessageOption[] = ["revoke", "react", "location", "order", "flow"];

/** The message that a text and at most one option make. Throws `UserError` for what is none. */
export function messageOf(text: string, choice: MessageChoice): MessageContent {
  const chosen = Object.entries(choice).filter(([, given]) => given !== undefined);
  const [first, ...more] = chosen as [MessageOption, string][];
  if (more.length > 0)
    throw new UserError(`one of ${chosen.map(([name]) => `--${name}`).join(", ")} at a time`);
  if (text === "" && (first === undefined || !WITHOUT_TEXT.includes(first[0])))
    throw new UserError('say what: npm run sim -- whatsapp "hello"');
  if (first === undefined) return textMessage(text);
  const [name, given] = first;
  if (given === "") throw new UserError(`--${name} takes ${MESSAGE_OPTIONS[name]}`);
  return MAKERS[name](given, text);
}

function pointOf(place: string) {
  const [latitude = Number.NaN, longitude = Number.NaN, ...more] = place.split(",").map(Number);
  const sound = Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 && more.length === 0;
  if (!sound) throw new UserError("--location takes two numbers: 18.01,-76.79");
  return { latitude, longitude };
}

function itemsOf(list: string) {
  return list.split(",").map((item) => {
    const [, sku = "", quantity = "1"] = /^([^:]+)(?::(\d{1,4}))?$/.exec(item) ?? [];
    if (sku === "") throw new UserError("--order takes articles: sku-1:2,sku-7");
    return {
      product_retailer_id: sku,
      quantity: Number(quantity),
      item_price: 7.5,
      currency: "USD",
    };
  });
}

/** Meta sends the answers of a flow as a text of their own. */
function answersOf(answers: string): string {
  const given = parseJson(answers);
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new UserError(`--flow takes JSON: '{"rating":"5"}'`);
  return JSON.stringify({ flow_token: "sim", ...given });
}
