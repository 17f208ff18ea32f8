// Reads {jwks, tokens: [{jws, payload?}]} from standard input and verifies each token with npm
// `jose`: a compact JWS as it is, a detached one with its payload. Prints the payloads' texts.
import { readFileSync } from "node:fs";
import { compactVerify, createLocalJWKSet, flattenedVerify } from "jose";

const { jwks, tokens } = JSON.parse(readFileSync(0, "utf8"));
const keys = createLocalJWKSet(jwks);
const payloads = [];
for (const { jws, payload } of tokens) {
  const [head, , signature] = jws.split(".");
  const verified =
    payload === undefined
      ? await compactVerify(jws, keys)
      : await flattenedVerify({ protected: head, payload, signature }, keys);
  payloads.push(new TextDecoder().decode(verified.payload));
}
console.log(JSON.stringify(payloads));
