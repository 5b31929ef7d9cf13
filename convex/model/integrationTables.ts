/** Tables of the webhook channels, spread into the schema. */
export const integrationTables = {};
