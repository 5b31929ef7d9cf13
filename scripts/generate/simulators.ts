import { CALL_MANNERS, DIRECTIVES } from "../../src/sim/directives";
import { code, GENERATED, page, table } from "./markdown";

/** `docs/simulators.md`: what a prompt can ask of the simulated model. */
export function simulatorsPage(): string {
  return page([
    "# The simulated model",
    "",
    GENERATED,
    "",
    ...INTRODUCTION,
    "",
    ...table(
      ["In a prompt", "The model"],
      Object.values(DIRECTIVES).map(({ does, form }) => [form, does]),
    ),
    "",
    "## Manners of calling tools",
    "",
    ...MANNERS,
    "",
    ...table(
      ["Manner", "What happens"],
      Object.entries(CALL_MANNERS).map(([name, meaning]) => [code(name), meaning]),
    ),
  ]);
}

const INTRODUCTION = [
  "Without an `OPENROUTER_API_KEY`, `npm start` answers with a simulated model that speaks OpenRouter's",
  "wire format. A prompt can ask it to behave as real models and their proxies do, so that a frontend",
  "can be seen under each. What is asked for stands anywhere in the prompt, in double brackets:",
  "",
  "```sh",
  "curl -N http://127.0.0.1:3211/api/chat -H 'Content-Type: application/json' \\",
  '  -H "Authorization: Bearer $(npm run -s token -- alice)" \\',
  `  -d '{"message":{"content":"[[calls:same-index]] [[tool:search_products {\\"query\\":\\"grinder\\"}]] hello"}}'`,
  "```",
  "",
  "It is as strict as the strictest providers behind OpenRouter: it answers 400 to a history that does",
  "not begin with a question, that holds a call which is not answered once, ids that repeat, arguments",
  "that are not a JSON object, a question right after a result, or text of white space alone.",
];

const MANNERS = [
  "Providers behind one API differ in how they stream calls. `[[calls:...]]` takes one manner or several,",
  "separated by commas.",
];
