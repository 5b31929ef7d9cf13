import {
  actionGeneric,
  componentsGeneric,
  internalActionGeneric,
  mutationGeneric,
  queryGeneric,
  type ActionBuilder,
  type DataModelFromSchemaDefinition,
  type MutationBuilder,
  type QueryBuilder,
} from "convex/server";
import type { ComponentApi as ActionCacheApi } from "@convex-dev/action-cache/_generated/component.js";
import type { ComponentApi as RateLimiterApi } from "@convex-dev/rate-limiter/_generated/component.js";
import type { ComponentApi as WorkpoolApi } from "@convex-dev/workpool/_generated/component.js";
import type schema from "./schema";

type DataModel = DataModelFromSchemaDefinition<typeof schema>;

// What `convex codegen` generates for an app of its own.
export const mutation = mutationGeneric as MutationBuilder<DataModel, "public">;
export const query = queryGeneric as QueryBuilder<DataModel, "public">;
export const action = actionGeneric as ActionBuilder<DataModel, "public">;
export const internalAction = internalActionGeneric as ActionBuilder<DataModel, "internal">;

export const components = componentsGeneric() as unknown as {
  readonly actionCache: ActionCacheApi;
  readonly rateLimiter: RateLimiterApi;
  readonly workpool: WorkpoolApi;
};
