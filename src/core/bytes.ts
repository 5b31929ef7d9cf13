/** Sizes in bytes. Every `…Bytes` name in the codebase is in this unit. */
export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Size of a text as it travels and is stored, in UTF-8. */
export const utf8Bytes = (text: string): number => new TextEncoder().encode(text).byteLength;
