"""An MCP server that knows who calls, by what callerid says in X-Callerid-Assertion.

callerid jwks > jwks.json       (prints the issuer beside it)
CALLERID_ISSUER=urn:uuid:... CALLERID_AUDIENCE=http://localhost:8000/mcp python verify_caller.py
"""

import os
from pathlib import Path
from typing import Any

import jwt
from mcp.server.mcpserver import Context, MCPServer

server: MCPServer[Any] = MCPServer("who")


def caller(ctx: Context[Any, Any], tool: str) -> dict[str, Any]:
    """The verified claims about this call; whatever is wrong with them raises."""
    token = (ctx.headers or {})["x-callerid-assertion"]
    header = jwt.get_unverified_header(token)
    keys = jwt.PyJWKSet.from_json(Path(os.environ.get("CALLERID_JWKS", "jwks.json")).read_text())
    issuer, audience = os.environ["CALLERID_ISSUER"], os.environ["CALLERID_AUDIENCE"]
    options: Any = {"require": ["iss", "aud", "exp", "iat", "sub", "jti"], "strict_aud": True}
    said = jwt.decode(
        token, keys[header["kid"]], ["EdDSA"], options, audience=audience, issuer=issuer, leeway=5
    )
    if header["typ"] != "callerid+jwt" or said["tctx"].get("tool") != tool:
        raise PermissionError("it is not about this call")
    return said


@server.tool(structured_output=False)
def who_called(ctx: Context[Any, Any]) -> str:
    """Say who called, and who acted for them."""
    said = caller(ctx, "who_called")
    agent = said.get("act", {}).get("sub", "nobody")
    return f"{said['sub']} called, {agent} acted, decision {said['txn']}"


if __name__ == "__main__":
    server.run("streamable-http", port=int(os.environ.get("PORT", "8000")))
