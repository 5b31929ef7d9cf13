/** @type {import('dependency-cruiser').IConfiguration} */
const NOT_TESTS = "\\.(test|long)\\.ts$";
const layer = (name, from, mayImport) => ({
  name,
  severity: "error",
  from: { path: from, pathNot: NOT_TESTS },
  to: { path: "^(convex|src|scripts|test)/", pathNot: mayImport },
});

// Files whose exports are HTTP actions or actions only; every other file under convex/ holds
// queries and mutations, which start in a fresh context and must stay light.
const ACTION_FILES =
  "^convex/(http|chatHttp|chat|webhookHttp|opsHttp|integrations/(gmail|whatsapp)Http|toolRuns|sentry)\\.ts$";

module.exports = {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "core-is-pure",
      severity: "error",
      from: { path: "^src/core/", pathNot: NOT_TESTS },
      to: { pathNot: "^src/core/" },
    },
    layer("errors", "^src/errors/", "^src/(errors|core)/"),
    layer("config", "^src/config/", "^src/(config|core|errors)/"),
    layer("log", "^src/log/", "^src/(log|core|errors|config)/"),
    // The promises are a file for people and scripts; nothing else of theirs is imported.
    layer("slo", "^src/slo/", "^(src/(slo|core)/|scripts/reliability/slo-baseline\\.json$)"),
    layer("http", "^src/http/", "^src/(http|core|errors|config|log)/"),
    layer(
      "channels",
      "^src/channels/",
      "^src/(channels|providers|tools|http|core|errors|config|log)/",
    ),
    layer("providers", "^src/providers/", "^src/(providers|core|errors|config|log)/"),
    layer("tools", "^src/tools/", "^src/(tools|providers|core|errors|config|log)/"),
    layer("client", "^src/client/", "^src/(client|core)/"),
    layer(
      "model",
      "^convex/model/",
      "^(convex/(model|_generated)/|convex/schema|src/(core|errors|config|log|slo|channels|providers|tools)/)",
    ),
    {
      ...layer(
        "functions",
        "^convex/([^/]+|integrations/[^/]+)\\.ts$",
        "^(convex/(model|_generated)/|convex/schema|src/(?!host|sim))",
      ),
      // The router alone binds handlers of other files.
      from: {
        path: "^convex/([^/]+|integrations/[^/]+)\\.ts$",
        pathNot: [NOT_TESTS, "^convex/http\\.ts$"],
      },
    },
    layer("host", "^src/host/", "^src/host/"),
    layer("sim", "^src/sim/", "^src/(sim|core)/"),
    layer("scripts", "^scripts/", "^(scripts/|src/)"),
    {
      name: "functions-do-not-import-functions",
      comment: "They share through model/ or call internal.x.y; only the router binds handlers.",
      severity: "error",
      from: { path: "^convex/", pathNot: ["^convex/http\\.ts$", "^convex/_generated/", NOT_TESTS] },
      to: { path: "^convex/([^/]+|integrations/[^/]+)\\.ts$", pathNot: "^convex/(schema)\\.ts$" },
    },
    {
      name: "transactions-stay-light",
      comment:
        "zod and openai cost milliseconds per fresh context; queries and mutations go without.",
      severity: "error",
      from: { path: "^convex/", pathNot: [ACTION_FILES, "^convex/_generated/", NOT_TESTS] },
      to: { path: "node_modules/(zod|openai|jose|@sentry)/", reachable: true },
    },
  ],
  options: {
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
  },
};
