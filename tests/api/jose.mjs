// Tokens by npm's jose, for interop_test.py and tests/vectors/jose.tsv; one JSON object on stdout.
//
//   node jose.mjs sign CLAIMS           a fresh key of each algorithm: [{alg, jwk, token}, …]
//   node jose.mjs verify JWKS TOKEN…    the verified header and claims of each: [{alg, claims}, …]
//
// Runs where jose is installed: interop_test.py copies it there.
import * as jose from "jose";

const [mode, first, ...rest] = process.argv.slice(2);

async function sign(claims) {
  const made = [];
  for (const alg of ["HS256", "ES256", "RS256", "EdDSA"]) {
    const options = { extractable: true, crv: "Ed25519" };
    const key = alg === "HS256" ? await jose.generateSecret(alg, options) : await jose.generateKeyPair(alg, options);
    const jwk = await jose.exportJWK(key.publicKey ?? key);
    const kid = await jose.calculateJwkThumbprint(jwk);
    const token = await new jose.SignJWT(claims)
      .setProtectedHeader({ alg, kid, typ: "JWT" })
      .sign(key.privateKey ?? key);
    made.push({ alg, jwk: { ...jwk, kid, alg, use: "sig" }, token });
  }
  return made;
}

async function verify(jwks, tokens) {
  const keys = jose.createLocalJWKSet(jwks);
  const found = [];
  for (const token of tokens) {
    const { payload, protectedHeader } = await jose.jwtVerify(token, keys, { audience: "authenticated" });
    found.push({ alg: protectedHeader.alg, claims: payload });
  }
  return found;
}

const result = mode === "sign" ? await sign(JSON.parse(first)) : await verify(JSON.parse(first), rest);
console.log(JSON.stringify(result));
