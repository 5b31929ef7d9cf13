import { defineSchema } from "convex/server";
import { chatTables } from "./model/chatTables";
import { guardTables } from "./model/guardTables";
import { integrationTables } from "./model/integrationTables";
import { telemetryTables } from "./model/telemetryTables";
import { toolTables } from "./model/toolTables";

export default defineSchema({
  ...chatTables,
  ...guardTables,
  ...toolTables,
  ...telemetryTables,
  ...integrationTables,
});
