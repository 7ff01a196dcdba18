// A site that keeps its visitor's session in cookies by @supabase/ssr, for supabase_test.py: one request of it.
//
//   node site.mjs call    {url, key, encoding, cookies, method, arguments} on stdin
//                         -> {data, error, set}: what supabase.auth.METHOD answers, and the Set-Cookie lines
//   node site.mjs keys    -> {ES256, RS256, EdDSA}: new key pairs as JWKs with their private halves
//
// Runs where @supabase/ssr is installed: supabase_test.py copies it there.
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";

async function call({ url, key, encoding, cookies, method, arguments: words }) {
  const { createServerClient, parseCookieHeader, serializeCookieHeader } = await import("@supabase/ssr");
  const set = [];
  const client = createServerClient(url, key, {
    cookieEncoding: encoding,
    cookies: {
      getAll: () => parseCookieHeader(cookies),
      setAll: (list) => set.push(...list.map(({ name, value, options }) => serializeCookieHeader(name, value, options))),
    },
    realtime: { transport: class {} }, // Node 18 and 20 have none of their own
  });
  const { data, error } = await client.auth[method](...words);
  return { data, error: error?.message ?? null, set };
}

function keys() {
  const made = {
    ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
    RS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
    EdDSA: generateKeyPairSync("ed25519"),
  };
  const jwk = ([alg, { privateKey }]) => [alg, { ...privateKey.export({ format: "jwk" }), alg, kid: `of ${alg}` }];
  return Object.fromEntries(Object.entries(made).map(jwk));
}

console.warn = () => {};
const [mode] = process.argv.slice(2);
const result = mode === "keys" ? keys() : await call(JSON.parse(readFileSync(0, "utf8")));
console.log(JSON.stringify(result));
