// Shapes from Meta's webhook reference: developers.facebook.com, "messages" field, text, image,
// interactive, reaction, status and unsupported messages, and "Business-scoped user IDs". Values
// are our own.

/** A delivery of one change of the field `messages`. */
export function delivery(value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return {
    object: "whatsapp_business_account",
    entry: [{ id: "200000000000001", changes: [change(value)] }],
  };
}

/** A change of the field `messages`, as it stands in an entry. */
export function change(value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return {
    field: "messages",
    value: {
      messaging_product: "whatsapp",
      metadata: { display_phone_number: "18765550100", phone_number_id: "300000000000001" },
      ...value,
    },
  };
}

export const TEXT_MESSAGE = {
  from: "18765550123",
  id: "wamid.TEXT01",
  timestamp: "1790000000",
  type: "text",
  text: { body: "Where is my parcel?" },
};

export const TEXT_DELIVERY = delivery({
  contacts: [{ profile: { name: "Dana" }, wa_id: "18765550123", user_id: "JM.10000000000000001" }],
  messages: [{ ...TEXT_MESSAGE, from_user_id: "JM.10000000000000001" }],
});

/** The sender hides the number: only business-scoped ids remain. */
export const USER_ID_DELIVERY = delivery({
  contacts: [
    { profile: { name: "Dana", username: "dana.r" }, user_id: "JM.10000000000000001" },
  ],
  messages: [
    {
      from_user_id: "JM.10000000000000001",
      id: "wamid.USERID01",
      timestamp: "1790000001",
      type: "text",
      text: { body: "Hello" },
    },
  ],
});

export const IMAGE_MESSAGE = {
  from: "18765550123",
  id: "wamid.IMAGE01",
  timestamp: "1790000002",
  type: "image",
  image: { caption: "the invoice", mime_type: "image/jpeg", sha256: "AA==", id: "400000000000001" },
};

export const DOCUMENT_MESSAGE = {
  from: "18765550123",
  id: "wamid.DOCUMENT01",
  timestamp: "1790000003",
  type: "document",
  document: { filename: "invoice.pdf", mime_type: "application/pdf", id: "400000000000002" },
};

export const BUTTON_REPLY = {
  context: { from: "18765550100", id: "wamid.ASKED01" },
  from: "18765550123",
  id: "wamid.REPLY01",
  timestamp: "1790000004",
  type: "interactive",
  interactive: { type: "button_reply", button_reply: { id: "yes", title: "Yes, please" } },
};

export const REACTION = {
  from: "18765550123",
  id: "wamid.REACTION01",
  timestamp: "1790000005",
  type: "reaction",
  reaction: { message_id: "wamid.ASKED01", emoji: "👍" },
};

export const UNSUPPORTED = {
  from: "18765550123",
  id: "wamid.UNSUPPORTED01",
  timestamp: "1790000006",
  type: "unsupported",
  errors: [{ code: 131051, title: "Message type unknown" }],
};

/** A report on a message of ours. */
export function status(
  word: string,
  timestamp: number,
  extra: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    id: "wamid.SENT01",
    status: word,
    timestamp: String(timestamp),
    recipient_id: "18765550123",
    recipient_user_id: "JM.10000000000000001",
    pricing: { billable: true, pricing_model: "PMP", category: "utility" },
    ...extra,
  };
}

export const FAILURE = {
  errors: [{ code: 131026, title: "Message undeliverable", error_data: { details: "…" } }],
};

/** A change of another field, which is not stored. */
export const ACCOUNT_UPDATE = {
  object: "whatsapp_business_account",
  entry: [
    {
      id: "200000000000001",
      time: 1_790_000_000,
      changes: [
        { field: "account_update", value: { phone_number: "18765550100", event: "VERIFIED_ACCOUNT" } },
      ],
    },
  ],
};
