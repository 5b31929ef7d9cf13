type Field = string | number | boolean | null;

/**
 * One JSON line per event. Names are snake_case and stable, units are in field names. Bodies,
 * tokens and user text never go in: what is logged is what an operator would query.
 */
export const log = {
  event(name: string, fields: Readonly<Record<string, Field>> = {}): void {
    // The one place that writes: Convex collects console output as the function's log.
    // eslint-disable-next-line no-console -- this module is the logger
    console.log(JSON.stringify({ event: name, ...fields }));
  },
};
