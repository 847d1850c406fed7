// The official TypeScript SDKs' clients as a process, doing what its standard input says: a line of JSON is a step, a
// line of JSON its result, {"ok": ...} or {"error": {name, code, message, data, status}}. It knows nothing of callerid:
// NODE_USE_ENV_PROXY, HTTPS_PROXY and NODE_EXTRA_CA_CERTS do that, as for any program.
//
// open {sdk: "ts1" | "ts2", transport: "http" | "sse", url, mode}, list, call {tool, arguments}, read {uri},
// prompt {name}, close. NODE_MODULES names the folder of the packages.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const SDKS = {
  ts1: () => ({
    ...require("@modelcontextprotocol/sdk/client/index.js"),
    ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
    ...require("@modelcontextprotocol/sdk/client/sse.js"),
    schema: require("@modelcontextprotocol/sdk/types.js").ElicitRequestSchema,
  }),
  ts2: () => ({ ...require("@modelcontextprotocol/client"), schema: "elicitation/create" }),
};
const TIMEOUT = { timeout: 15000 };
const sessions = new Map();

function text(result) {
  return (result.content ?? []).map((part) => part.text ?? "").join("");
}

// An OAuth provider as programs write it; its person is logged in already, so that the login's page sends back a code.
function person(held) {
  const redirectUrl = "http://localhost:9/callback";
  return {
    redirectUrl,
    clientMetadata: { client_name: "tests", redirect_uris: [redirectUrl] },
    clientInformation: () => held.registered,
    saveClientInformation: (registered) => void (held.registered = registered),
    tokens: () => held.tokens,
    saveTokens: (tokens) => void (held.tokens = tokens),
    saveCodeVerifier: (verifier) => void (held.verifier = verifier),
    codeVerifier: () => held.verifier,
    async redirectToAuthorization(page) {
      held.pages = [...(held.pages ?? []), String(page)];
      const answer = await fetch(page, { redirect: "manual" });
      held.code = new URL(answer.headers.get("location")).searchParams.get("code");
    },
  };
}

const STEPS = {
  async open({ on, sdk, transport = "http", url, mode, login }) {
    const { Client, StreamableHTTPClientTransport, SSEClientTransport, schema } = SDKS[sdk]();
    const options = { capabilities: { elicitation: { form: {} } } };
    if (mode) options.versionNegotiation = { mode };
    const client = new Client({ name: `callerid-${sdk}`, version: "1" }, options);
    const held = { client, asked: 0, faults: [] };
    client.onerror = (error) => held.faults.push(String(error.message ?? error));
    client.setRequestHandler(schema, async () => {
      held.asked += 1;
      return { action: "accept", content: { answer: "blue" } };
    });
    const Transport = transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
    const auth = login ? person(held) : undefined;
    const made = new Transport(new URL(url), { authProvider: auth });
    try {
      await client.connect(made, TIMEOUT);
    } catch (error) {
      if (!held.code) throw Object.assign(error, { data: { pages: held.pages ?? [], tokens: held.tokens ?? null } });
      await made.finishAuth(held.code);
      await client.connect(new Transport(new URL(url), { authProvider: auth }), TIMEOUT);
    }
    sessions.set(on, held);
    return { server: client.getServerVersion()?.name ?? null };
  },
  async list({ client }) {
    return (await client.listTools(undefined, TIMEOUT)).tools.map((tool) => tool.name);
  },
  async call({ client, sdk, tool, arguments: given }) {
    const params = { name: tool, arguments: given };
    const result = await (sdk === "ts1" ? client.callTool(params, undefined, TIMEOUT) : client.callTool(params, TIMEOUT));
    return { text: text(result), isError: result.isError ?? false };
  },
  async read({ client, uri }) {
    return (await client.readResource({ uri }, TIMEOUT)).contents[0].text;
  },
  async prompt({ client, name, arguments: given }) {
    return (await client.getPrompt({ name, arguments: given }, TIMEOUT)).messages[0].content.text;
  },
  async state({ asked, faults }) {
    return { asked, faults };
  },
  async pages({ pages }) {
    return pages;
  },
  async close({ client, on }) {
    sessions.delete(on);
    await client.close();
    return null;
  },
};

function told(error) {
  const { code, data, message } = error;
  const status = typeof code === "number" && code >= 100 && code < 600 ? code : (data?.status ?? null);
  return { name: error.constructor.name, code: code ?? null, message: String(message), data: data ?? null, status };
}

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  try {
    const result = await STEPS[step.do]({ ...sessions.get(step.on), ...step });
    console.log(JSON.stringify({ ok: result ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: told(error) }));
  }
}
process.exit(0);
