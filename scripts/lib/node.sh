# shellcheck shell=bash
# Sourced after env.sh: ensure_node sets NODE (a Node of 22 or newer) and NODE_MODULES (what tests/node asks for).

NODE_FLOOR=22
NODE_HOME="$ROOT/.node"
NODE_MODULES="$NODE_HOME/node_modules"

no_node() {
  printf 'callerid: %s\n' "$*" >&2
  exit 2
}

# is_node FILE: true if FILE answers that it is new enough.
is_node() {
  local version
  version="$("$1" --version 2>/dev/null </dev/null)" || return 1
  [[ "$version" =~ ^v([0-9]+)\. ]] && ((BASH_REMATCH[1] >= NODE_FLOOR))
}

# find_node [FILE...]: sets NODE to this machine's Node if it is new enough, or to the first FILE that is.
find_node() {
  local candidate
  while IFS= read -r candidate; do
    if [[ -n "$candidate" ]] && is_node "$candidate"; then
      NODE="$candidate"
      return
    fi
  done < <(type -aP node nodejs || true; printf '%s\n' "$@")
  return 1
}

# node_ready: true if what tests/node pins is installed whole, and there is a Node for it; sets NODE.
node_ready() {
  [[ -f "$NODE_HOME/stamp" && "$(<"$NODE_HOME/stamp")" == "$(<"$ROOT/tests/node/package-lock.json")" ]] &&
    find_node "$NODE_MODULES"/node-linux-*/bin/node
}

# install_node: makes .node anew, beside the old one, so that what stands there is always whole.
install_node() {
  local made="$NODE_HOME.$$" options=(--ignore-scripts --no-audit --no-fund --no-progress --loglevel=error) said
  type -P npm >/dev/null || no_node "npm is missing, and the official suite comes from it:" \
    "install Node $NODE_FLOOR or newer with npm, then run scripts/node again."
  # Node itself is among the packages, for machines with an older one; it is not fetched where it is not needed.
  if find_node; then options+=(--omit=optional); fi
  printf 'callerid: installing what the tests need of Node (once, a minute) ...\n' >&2
  rm -rf -- "$NODE_HOME".[0-9]*
  mkdir -- "$made"
  cp -- "$ROOT"/tests/node/package.json "$ROOT"/tests/node/package-lock.json "$made"
  if ! said="$(cd -- "$made" && npm ci "${options[@]}" 2>&1 </dev/null)"; then
    sed -n '1,4s/^/  /p' <<<"$said" >&2
    rm -rf -- "$made"
    no_node "npm could not install them, as it says above: connect this machine to an npm registry once" \
      "(npm's own settings for a proxy or a mirror are used), then run scripts/node again."
  fi
  cp -- "$ROOT/tests/node/package-lock.json" "$made/stamp"
  rm -rf -- "$NODE_HOME"
  mv -- "$made" "$NODE_HOME"
}

# ensure_node: after it, NODE runs what is in NODE_MODULES; both are exported. Without npm or a registry: exit 2.
ensure_node() {
  if ! node_ready; then
    # One installs at a time, where the system can say so; whoever waited finds it done.
    exec 8<"$ROOT/tests/node/package.json"
    if type -P flock >/dev/null; then flock 8; fi
    node_ready || install_node
    exec 8<&-
    node_ready || no_node "there is no Node of version $NODE_FLOOR or newer here, and none to install for this" \
      "system ($(uname -sm)): install one, then run scripts/node again."
  fi
  export NODE NODE_MODULES
}
