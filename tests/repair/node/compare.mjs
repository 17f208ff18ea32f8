// What the npm package jsonrepair makes of each text: an array of texts in, an array of results out
// (null where it gave up).
import { jsonrepair } from "jsonrepair";

let input = "";
for await (const chunk of process.stdin) input += chunk;
const results = JSON.parse(input).map((text) => {
  try {
    return jsonrepair(text);
  } catch {
    return null;
  }
});
process.stdout.write(JSON.stringify(results));
