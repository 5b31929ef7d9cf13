import { KIB } from "../../core/bytes";
import { type CallIo, callProvider, type Gate } from "../../providers/call";
import { type FetchedKeys, readKeySet } from "./googleKeys";

/** Google's set is about 1 KiB. */
const RESPONSE_BYTES_MAX = 64 * KIB;

/** Fetches Google's signing keys. Throws the error of the call, or of an answer without keys. */
export async function fetchGoogleKeys(gate: Gate, io: CallIo): Promise<FetchedKeys> {
  return await callProvider(
    gate,
    {
      provider: "google_certs",
      method: "GET",
      path: "",
      responseBytesMax: RESPONSE_BYTES_MAX,
      parse: ({ json, headers }) => readKeySet(json, headers.get("cache-control"), io.now()),
    },
    io,
  );
}
