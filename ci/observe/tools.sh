# The tools of those who read dashboards, rules and manifests, fetched once into a folder of the user's.
# Sourced by check.sh and live.sh.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${RUMLEDGER_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/observe}
mkdir -p "$tools"

# debian PACKAGE BINARY: the binaries alone; the package's service is not installed.
debian() {
  if ! [ -x "$tools/$1/usr/bin/$2" ]; then
    (
      cd "$tools"
      rm -f "$1"_*.deb
      apt-get download "$1" >/dev/null 2>&1 ||
        { apt-get update >/dev/null && apt-get download "$1" >/dev/null 2>&1; }
      dpkg-deb -x "$1"_*.deb "$1"
      rm -f "$1"_*.deb
    )
  fi
  PATH="$tools/$1/usr/bin:$PATH"
}

npm_packages() {
  if ! cmp -s "$here/package.json" "$tools/npm/package.json"; then
    mkdir -p "$tools/npm"
    cp "$here/package.json" "$tools/npm/"
    (cd "$tools/npm" && npm install --silent --no-audit --no-fund --no-package-lock >/dev/null 2>&1)
  fi
  cp "$here"/{*.mjs,dashboard.ts,tsconfig.json} "$tools/npm/"
}

node_() { (cd "$tools/npm" && node "$@"); }

# go_tool NAME PACKAGE@VERSION: builds it where it is not installed.
go_tool() {
  command -v "$1" >/dev/null && return
  [ -x "$tools/$1" ] || GOBIN="$tools" go install -p 1 "$2" >&2
  PATH="$tools:$PATH"
}

render() {
  if command -v kubectl >/dev/null && ! command -v kustomize >/dev/null; then
    kubectl kustomize "$1"
  else
    go_tool kustomize sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
    kustomize build "$1"
  fi
}
