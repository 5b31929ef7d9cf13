import { defineSchema } from "convex/server";
import { chatTables } from "./model/chatTables";
import { integrationTables } from "./model/integrationTables";
import { reliabilityTables } from "./model/reliabilityTables";

export default defineSchema({
  ...chatTables,
  ...reliabilityTables,
  ...integrationTables,
});
