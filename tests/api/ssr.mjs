// @supabase/ssr itself, for ssr_test.py: one JSON array on stdin, one on stdout.
//
//   node ssr.mjs write NAME    [{session, encoding}, …] -> for each the cookies that ssr would set: [[name, value], …]
//   node ssr.mjs read NAME     [Cookie header, …] -> for each the access token of its session, or null
//
// Runs where @supabase/ssr is installed: ssr_test.py copies it there.
import { readFileSync } from "node:fs";
import { createChunks, createServerClient, parseCookieHeader, serializeCookieHeader, stringToBase64URL } from "@supabase/ssr";

const [mode, name] = process.argv.slice(2);
console.warn = () => {};

function write({ session, encoding }) {
  const json = JSON.stringify(session);
  const value = encoding === "raw" ? json : "base64-" + stringToBase64URL(json);
  return createChunks(name, value).map((chunk) => {
    const line = serializeCookieHeader(chunk.name, chunk.value, {});
    return [chunk.name, line.slice(chunk.name.length + 1)];
  });
}

async function read(header) {
  const client = createServerClient("http://ref.localhost", "anon", {
    cookieOptions: { name },
    cookies: { getAll: () => parseCookieHeader(header), setAll: () => {} },
    realtime: { transport: class {} }, // Node 18 and 20 have none of their own
  });
  const { data } = await client.auth.getSession();
  return data.session?.access_token ?? null;
}

const wanted = JSON.parse(readFileSync(0, "utf8"));
const found = [];
for (const one of wanted) found.push(mode === "write" ? write(one) : await read(one));
console.log(JSON.stringify(found));
