# shellcheck shell=bash
# Sourced by the scripts beside it: sets ROOT and PYTHON, and ensure_env makes .venv when it is not there.

ROOT="$(cd -P -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")/../.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"
PROBE_SECONDS=10
# Where a Python may be that is neither on the PATH nor pyenv's.
PLACES=(/usr/local/bin /usr/bin /opt/homebrew/bin /opt/local/bin /opt/python*/bin
  "${HOME:-}/.local/bin" "${HOME:-}"/.local/share/uv/python/cpython-*/bin)
unset PYTHONHOME

die() {
  printf 'callerid: %s\n' "$*" >&2
  exit 1
}

# A candidate is asked, not believed: its name may be a version manager's shim that fails when run, and some
# distributions ship a Python without venv or ssl. One in a virtual environment (an activated .venv, about to be
# made anew) answers with the Python behind it.
QUESTION='import ensurepip, sqlite3, ssl, sys, sysconfig, venv
if sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("callerid-python %d.%d.%d %s" % (sys.version_info[:3] + (sys._base_executable,)))'

# probe COMMAND: true if COMMAND answered in time that it is a Python we can use; sets MINOR and ANSWER (its path).
probe() {
  local line="" status=0
  exec 9< <(exec "$1" -I -c "$QUESTION" 2>/dev/null </dev/null)
  IFS= read -r -t "$PROBE_SECONDS" line <&9 || status=$?
  exec 9<&-
  if ((status > 128)); then kill -9 "${!:-}" 2>/dev/null || true; fi
  [[ "$line" =~ ^callerid-python\ 3\.(12|13|14)\.[0-9]+\ (/.+)$ ]] || return 1
  MINOR="${BASH_REMATCH[1]}" ANSWER="${BASH_REMATCH[2]}"
}

# candidates: one path a line, 3.13 first because that is what was measured.
candidates() {
  local minor place file
  for minor in 13 14 12; do
    type -aP "python3.$minor" || true
    for file in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor"*/bin/python3."$minor"; do
      if [[ -x "$file" ]]; then printf '%s\n' "$file"; fi
    done | sort -rV
    uv python find --system "3.$minor" 2>/dev/null || true
    for place in ${PLACES[@]+"${PLACES[@]}"}; do
      if [[ -x "$place/python3.$minor" ]]; then printf '%s\n' "$place/python3.$minor"; fi
    done
  done
  type -aP python3 python || true
}

# find_python: sets ANSWER to the best Python of this machine, or fails.
find_python() {
  local candidate found=()
  while IFS= read -r candidate; do
    if ! probe "$candidate"; then continue; fi
    found[MINOR]="${found[MINOR]:-$ANSWER}"
    if ((MINOR == 13)); then break; fi
  done < <(candidates)
  ANSWER="${found[13]:-${found[14]:-${found[12]:-}}}"
  [[ -n "$ANSWER" ]]
}

# env_ready: true if .venv was finished here, from these requirements, and still runs (lib/make_env.py writes the stamp).
env_ready() {
  local stamp="$ROOT/.venv/callerid-stamp"
  [[ -f "$stamp" && "$(<"$stamp")" == "callerid-env 1 $ROOT"$'\n'"$(<"$ROOT/requirements/dev.txt")" ]] &&
    "$PYTHON" -I -c '' 2>/dev/null
}

# ensure_env: after it, PYTHON runs with all that the requirements name, and with the package from addon/.
ensure_env() {
  if [[ -n "${CALLERID_PYTHON:-}" ]]; then
    probe "$CALLERID_PYTHON" || die "CALLERID_PYTHON ($CALLERID_PYTHON) did not answer as a Python 3.12, 3.13 or 3.14" \
      "with venv, ssl and sqlite3: set it to the path of one that does, or unset it."
    if env_ready && [[ -x "$ROOT/.venv/bin/python3.$MINOR" ]]; then return; fi
  else
    if env_ready; then return; fi
    find_python || die "no Python 3.12, 3.13 or 3.14 with venv, ssl and sqlite3 was found: install Python 3.13 with" \
      "your package manager, pyenv or uv, or set CALLERID_PYTHON to the path of one."
  fi
  "$ANSWER" -I "$ROOT/scripts/lib/make_env.py" "$ROOT"
}
