import { MINUTE } from "../../core/time";

/** An unknown key id costs one refresh in this time, however many tokens name one. */
export const KEY_REFRESH_GAP_MS = MINUTE;
