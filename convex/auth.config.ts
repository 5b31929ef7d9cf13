import type { AuthConfig } from "convex/server";

// One identity provider by its issuer and key set: Clerk, Auth0 and the development issuer alike.
// Convex asks for the three variables at deployment; see the README's list for a first deployment.
/* eslint-disable no-restricted-properties, @convex-dev/no-process-env -- Convex evaluates this file by itself, at deployment */
export default {
  providers: [
    {
      type: "customJwt",
      issuer: process.env["AUTH_ISSUER"] ?? "",
      jwks: process.env["AUTH_JWKS_URL"] ?? "",
      algorithm: "RS256",
      applicationID: process.env["AUTH_AUDIENCE"] ?? "",
    },
  ],
} satisfies AuthConfig;
