// A scripted LLM service on loopback: its answer and its usage are the JSON in the first argument.
// It prints its address and lives until its standard input is closed.
import { LLMock } from "@copilotkit/aimock";

const { content, usage } = JSON.parse(process.argv[2]);
const mock = new LLMock({ port: 0, logLevel: "silent" });
mock.addFixture({ match: { predicate: () => true }, response: { content, usage } });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", async () => {
  await mock.stop();
  process.exit(0);
});
