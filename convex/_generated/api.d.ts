/* eslint-disable */
/**
 * Generated `api` utility.
 *
 * THIS CODE IS AUTOMATICALLY GENERATED.
 *
 * To regenerate, run `npx convex dev`.
 * @module
 */

import type {
  ApiFromModules,
  FilterApi,
  FunctionReference,
} from "convex/server";
import type * as model_chatTables from "../model/chatTables.js";
import type * as model_claims from "../model/claims.js";
import type * as model_integrationTables from "../model/integrationTables.js";
import type * as model_limits from "../model/limits.js";
import type * as model_reliabilityTables from "../model/reliabilityTables.js";

/**
 * A utility for referencing Convex functions in your app's API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
declare const fullApi: ApiFromModules<{
  "model/chatTables": typeof model_chatTables;
  "model/claims": typeof model_claims;
  "model/integrationTables": typeof model_integrationTables;
  "model/limits": typeof model_limits;
  "model/reliabilityTables": typeof model_reliabilityTables;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;
