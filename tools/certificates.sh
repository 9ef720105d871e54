#!/bin/sh
# Makes the certificates of the tests, each with its key beside it, unless they are there: no key is kept in the tree.
#
# Usage: tools/certificates.sh FOLDER
#
#   ca           the authority that the specs trust          stranger-ca   one that they do not
#   server       localhost, 127.0.0.1, ::1                   rsa           the same with an RSA key
#   expired      ended in 2020                               future        begins in 2090
#   other-name   other.example, *.wild.example, 192.0.2.7    nameless      localhost in its common name only
#   client       meant for clients                           stranger      localhost, of stranger-ca
#   leaf, chain  localhost, of an intermediate authority: without and with that one's certificate
#   self-signed  localhost, as `openssl req -x509` makes it; self-expired: the same, ended in 2020
set -eu

if ! command -v openssl >/dev/null; then
  echo "tcp: openssl is missing: install the package openssl" >&2
  exit 1
fi
folder=$1
[ ! -e "$folder/complete" ] || [ "$0" -nt "$folder/complete" ] || exit 0
work=$folder.new.$$
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
whole=$PWD/$folder
cd "$work"

cat >openssl.cnf <<'CONFIG'
[req]
distinguished_name = name
[name]
[ca]
default_ca = test
[test]
database = index
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 3650
policy = any
unique_subject = no
email_in_dn = no
[any]
commonName = supplied
CONFIG
: >index

# quietly COMMAND...: its output matters only if it fails.
quietly() {
  "$@" >log 2>&1 || { cat log >&2; exit 1; }
}

# key NAME [rsa]
key() {
  if [ "${2:-}" = rsa ]; then
    quietly openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key"
  else
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
  fi
}

# self_signed NAME COMMON_NAME EXTENSION...
self_signed() {
  name=$1 common=$2
  shift 2
  set -- "$@" # one -addext for each
  extensions=
  for extension in "$@"; do
    extensions="$extensions -addext $extension"
  done
  key "$name"
  # shellcheck disable=SC2086
  quietly openssl req -x509 -new -key "$name.key" -subj "/CN=$common" -days 3650 -config openssl.cnf $extensions \
    -addext basicConstraints=critical,CA:TRUE -out "$name.pem"
}

# issued NAME AUTHORITY COMMON_NAME EXTENSIONS [OPTION...]: the extensions are lines of a configuration.
issued() {
  name=$1 authority=$2 common=$3 extensions=$4
  shift 4
  [ -e "$name.key" ] || key "$name"
  quietly openssl req -new -key "$name.key" -subj "/CN=$common" -config openssl.cnf -out "$name.csr"
  printf '%b\n' "$extensions" >extensions
  quietly openssl ca -batch -notext -config openssl.cnf -cert "$authority.pem" -keyfile "$authority.key" \
    -in "$name.csr" -extfile extensions "$@" -out "$name.pem"
}

here=subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
self_signed ca "Test Authority"
self_signed stranger-ca "Strange Authority"
issued server ca localhost "$here"
key rsa rsa
issued rsa ca localhost "$here"
issued expired ca localhost "$here" -startdate 20200101000000Z -enddate 20200102030405Z
issued future ca localhost "$here" -startdate 20900101000000Z -enddate 20910101000000Z
issued other-name ca other.example 'subjectAltName=DNS:other.example,DNS:*.wild.example,IP:192.0.2.7'
issued nameless ca localhost basicConstraints=CA:FALSE
issued client ca client "$here\nextendedKeyUsage=clientAuth"
issued stranger stranger-ca localhost "$here"
issued intermediate ca "Intermediate Authority" basicConstraints=critical,CA:TRUE
issued leaf intermediate localhost "$here"
cat leaf.pem intermediate.pem >chain.pem
cp leaf.key chain.key
self_signed self-signed localhost "$here"
key self-expired
cp self-expired.key self-expired-ca.key
quietly openssl req -x509 -new -key self-expired.key -subj /CN=localhost -config openssl.cnf -out self-expired-ca.pem
issued self-expired self-expired-ca localhost "$here" -startdate 20200101000000Z -enddate 20200102030405Z -selfsign

rm -f [0-9A-F]*.pem *.csr extensions index* log openssl.cnf self-expired-ca.*
: >complete
cd - >/dev/null
rm -rf "$whole"
mv "$work" "$whole"
