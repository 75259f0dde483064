#!/bin/sh
# Programs from outside that some tests drive: a browser, Prometheus, docker-compose, openssl.
#
# A test machine (CI=true, root, apt-get) gets what is missing; there no test may be skipped. A
# person's machine is left alone: she is told what will be skipped, and how to get it.
set -eu

missing=""
for pair in chromium:chromium prometheus:prometheus promtool:prometheus docker-compose:docker-compose openssl:openssl; do
    program=${pair%%:*}
    package=${pair##*:}
    if ! command -v "$program" >/dev/null 2>&1; then
        case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
    fi
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the tests: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
fi
if [ "${CI:-}" = true ]; then
    echo "tests need $missing, and this machine cannot install them by itself (root and apt-get)" >&2
    exit 1
fi
echo "Tests that need $missing will be skipped. On Debian: apt-get install $missing"
