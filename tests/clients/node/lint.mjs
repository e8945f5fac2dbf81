// Lint an OpenAPI document with Redocly's strict rules: `node lint.mjs FILE`. Prints one line per problem.
import { createConfig, lint } from "@redocly/openapi-core";

const config = await createConfig({ extends: ["recommended-strict"] });
const problems = await lint({ ref: process.argv[2], config });
for (const { ruleId, message, location } of problems) console.log(ruleId, message, location[0]?.pointer);
process.exit(problems.length ? 1 : 0);
