/** Whom development tokens name; a deployment names its own identity provider instead. */
export const DEV_ISSUER = { issuer: "https://issuer.ballast.localhost", audience: "ballast" };
