import convex from "@convex-dev/eslint-plugin";
import { defineConfig, globalIgnores } from "eslint/config";
import tseslint from "typescript-eslint";

const readThroughConfig = {
  object: "process",
  property: "env",
  message: "Read knobs through src/config.",
};

export default defineConfig(
  globalIgnores(["**/_generated/**", ".output/**", ".ballast/**", "node_modules/**"]),
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ["*.mjs", "*.cjs", "scripts/*.mjs"] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
  },
  ...convex.configs.recommended,
  {
    files: ["**/*.ts"],
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/consistent-type-definitions": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      eqeqeq: ["error", "always"],
      "max-params": ["error", 4],
      "max-lines-per-function": ["error", { max: 70, skipBlankLines: true, skipComments: true }],
      "no-console": "error",
      "@typescript-eslint/require-await": "off",
      "no-restricted-properties": ["error", readThroughConfig],
    },
  },
  {
    files: ["src/core/**/*.ts"],
    ignores: ["**/*.test.ts"],
    rules: {
      "no-restricted-properties": [
        "error",
        { object: "Date", property: "now", message: "Take nowMs as an argument." },
        { object: "Math", property: "random", message: "Take a random source as an argument." },
        { object: "process", property: "env", message: "Take config as an argument." },
      ],
      "no-restricted-globals": ["error", "fetch", "crypto", "setTimeout"],
    },
  },
  { files: ["convex/**/*.ts"], rules: { "@convex-dev/no-collect-in-query": "error" } },
  {
    files: ["**/*.test.ts", "test/**/*.ts"],
    rules: { "max-lines-per-function": "off", "@typescript-eslint/require-await": "off" },
  },
  { files: ["**/*.mjs", "**/*.cjs"], extends: [tseslint.configs.disableTypeChecked] },
);
