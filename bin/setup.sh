# Makes a clone ready to run. Sourced by the other scripts with $root set to the clone; gives $node, a Node of version 24 or later.
# Quiet when there is nothing to do. POSIX sh.

: "${root:?bin/setup.sh is for other scripts, which say where the clone is; sh bin/tool node -v makes a clone ready}"
shallot_wanted=24

shallot_fail() {
  echo "shallot: $*" >&2
  exit 1
}

# Whether $1 is a Node that is new enough.
shallot_new_enough() {
  shallot_version=$("$1" -v 2>/dev/null) || return 1
  case $shallot_version in v[0-9]*.*) ;; *) return 1 ;; esac
  shallot_version=${shallot_version#v}
  [ "${shallot_version%%.*}" -ge "$shallot_wanted" ]
}

# The Node that `npm ci` has brought. Debian's npm 9 installs the package of this machine and forgets its link in .bin.
shallot_fetched_node() {
  for shallot_found in "$root/node_modules/.bin/node" "$root"/node_modules/node-linux-*/bin/node; do
    if [ -x "$shallot_found" ] && shallot_new_enough "$shallot_found"; then
      printf '%s\n' "$shallot_found"
      return 0
    fi
  done
  return 1
}

# Whether node_modules holds what package-lock.json names, by content: file times say little after a checkout.
# The copy of the lockfile is left there by the last set-up, so that the usual answer costs one `cmp`.
shallot_ready() {
  [ -d "$root/node_modules" ] || return 1
  # Installed as a package (npm install -g): npm has put the dependencies in place and there is no lockfile to compare.
  [ -f "$root/package-lock.json" ] || return 0
  cmp -s "$root/package-lock.json" "$root/node_modules/.shallot-lock"
}

shallot_install() {
  if ! shallot_ready; then
    # A package has no tests: what only they and the builds need is not fetched.
    if [ -d "$root/test" ]; then shallot_dev=--include=dev; else shallot_dev=--omit=dev; fi
    # Another set-up, or `npm install` by hand, may have done the work meanwhile.
    if [ -f "$root/node_modules/.package-lock.json" ] && shallot_matches; then
      cp "$root/package-lock.json" "$root/node_modules/.shallot-lock" 2>/dev/null || :
      return 0
    fi
    command -v npm >/dev/null 2>&1 || shallot_fail "npm is needed once, to fetch the packages named in package-lock.json, and was not found. Install npm (any version since 9), or run \`npm ci\` elsewhere and copy node_modules."
    echo "shallot: fetching packages (npm ci), this happens once ..." >&2
    shallot_npm_ci npm || shallot_fail "\`npm ci\` failed in $root (its message is above)."
    # npm leaves out binaries whose package doesn't take the Node that npm itself runs on, such as Debian's: then it runs once more, on the Node that
    # it has just brought. NODE_PATH is where Debian's npm has its own packages.
    if ! shallot_matches && shallot_fetched=$(shallot_fetched_node); then
      shallot_npm=$(readlink -f "$(command -v npm)")
      # npm empties node_modules first: the Node is lent a place outside.
      shallot_lent=$(mktemp -d) && cp "$shallot_fetched" "$shallot_lent/node" || shallot_fail "there is no room in the temporary folder for a copy of Node.js."
      (
        export PATH="$shallot_lent:$PATH" NODE_PATH=/usr/share/nodejs NODE_NO_WARNINGS=1
        shallot_npm_ci "$shallot_lent/node" "$shallot_npm"
      ) || shallot_npm_ci npm || shallot_fail "\`npm ci\` failed in $root (its message is above)."
      rm -rf "$shallot_lent"
    fi
    cp "$root/package-lock.json" "$root/node_modules/.shallot-lock" || shallot_fail "$root/node_modules is not writable."
  fi
}

shallot_matches() {
  (cd "$root" && node bin/lock-matches.mjs "$shallot_dev") 2>/dev/null
}

# `npm ci` by the program that the arguments name.
shallot_npm_ci() {
  (cd "$root" && "$@" ci "$shallot_dev" --include=optional --no-audit --no-fund --loglevel=error >&2)
}

# One set-up at a time: a second start waits for the first and then finds the work done.
shallot_install_locked() {
  shallot_lock=$root/.setup.lock
  if command -v flock >/dev/null 2>&1; then
    (
      flock 9 || exit 1
      shallot_install
    ) 9>"$shallot_lock" || exit 1
  else
    until mkdir "$shallot_lock.d" 2>/dev/null; do
      shallot_holder=$(cat "$shallot_lock.d/pid" 2>/dev/null || :)
      # A holder that was killed leaves its lock behind.
      if [ -n "$shallot_holder" ] && ! kill -0 "$shallot_holder" 2>/dev/null; then rm -rf "$shallot_lock.d"; else sleep 1; fi
    done
    echo $$ >"$shallot_lock.d/pid"
    trap 'rm -rf "$shallot_lock.d"' EXIT INT TERM
    shallot_install
    rm -rf "$shallot_lock.d"
    trap - EXIT INT TERM
  fi
}

if ! shallot_ready; then shallot_install_locked; fi

# Never an older Node: what runs on it breaks in ways that look like something else.
if [ -n "${SHALLOT_NODE:-}" ]; then
  shallot_new_enough "$SHALLOT_NODE" || shallot_fail "SHALLOT_NODE is $SHALLOT_NODE, which is not a Node.js of version $shallot_wanted or later."
  node=$(command -v "$SHALLOT_NODE")
  case $node in /*) ;; *) node=$PWD/$node ;; esac
elif shallot_fetched=$(shallot_fetched_node); then
  node=$shallot_fetched
elif command -v node >/dev/null 2>&1 && shallot_new_enough node; then
  node=$(command -v node)
else
  shallot_fail "Node.js $shallot_wanted or later is needed; found $(node -v 2>/dev/null || echo none). On Linux x64 and arm64 \`npm ci\` brings one; elsewhere install it from https://nodejs.org, or name one in SHALLOT_NODE."
fi

# Compiled and type-stripped sources are kept between runs: a start takes a fraction of the time, and the compiler stays out of memory.
: "${NODE_COMPILE_CACHE:=$root/node_modules/.cache/shallot}"
export NODE_COMPILE_CACHE

# The dashboard's pages are made of src/dashboard, into dist/dashboard, when they are others than those it was made of: less than a second, and
# nothing is fetched. A package carries the pages and has no vite.
shallot_dashboard() {
  [ -f "$root/src/dashboard/index.html" ] && [ -e "$root/node_modules/.bin/vite" ] && [ -w "$root" ] || return 0
  shallot_sources=$(cd "$root" && find src/dashboard package-lock.json -type f | LC_ALL=C sort | xargs cat | cksum)
  if [ -f "$root/dist/dashboard/index.html" ] && [ "$(cat "$root/dist/dashboard.sources" 2>/dev/null)" = "$shallot_sources" ]; then return 0; fi
  # Made aside: two that start at once do not disturb each other.
  shallot_made=$root/dist/.dashboard-$$
  if shallot_said=$(cd "$root" && "$node" node_modules/vite/bin/vite.js build src/dashboard --outDir "$shallot_made" --logLevel warn 2>&1); then
    rm -rf "$root/dist/dashboard"
    mv "$shallot_made" "$root/dist/dashboard" 2>/dev/null || rm -rf "$shallot_made"
    printf '%s\n' "$shallot_sources" >"$root/dist/dashboard.sources"
  else
    rm -rf "$shallot_made"
    printf 'shallot: the dashboard could not be built; everything else works.\n%s\n' "$shallot_said" >&2
  fi
}
shallot_dashboard
