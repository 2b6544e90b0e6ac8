// A greeting, the arguments, one environment variable.
import { getArguments, getEnvironment } from "wasi:cli/environment@0.2.10";

export const run = {
  run() {
    console.log("hello from JavaScript");
    for (const argument of getArguments().slice(1)) console.log(`arg ${argument}`);
    const variables = new Map(getEnvironment());
    console.log(`COLOUR=${variables.get("COLOUR") ?? "none"}`);
  },
};
