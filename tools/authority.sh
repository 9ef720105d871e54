# shellcheck shell=sh
# What the scripts that make certificates share. They source it.
#
#   begin FOLDER FILE...                              ends the script if FOLDER was complete after the script and these
#                                                     files were; else goes to an empty folder
#   finish                                            puts that one in its place
#   quietly COMMAND...                                its output matters only if it fails
#   key NAME [KIND]                                   p256, p384, p521, rsa1024, rsa2048, rsa3072 or ed25519
#   self_signed NAME SUBJECT EXTENSION...             by `openssl req -x509`
#   issued NAME AUTHORITY SUBJECT EXTENSIONS [OPTION...]
#   crl NAME AUTHORITY "REVOKED..." [OPTION...]
#
# A SUBJECT without a slash in front is a common name, EXTENSIONS are lines of a configuration, OPTIONs are for
# `openssl ca`. Each certificate is NAME.pem, its key NAME.key unless that one is there, and a list is NAME.crl.

if ! command -v openssl >/dev/null; then
  echo "tcp: openssl is missing: install the package openssl" >&2
  exit 1
fi

# Ranges of letters are ASCII's.
export LC_ALL=C

begin() {
  case $1 in
  /*) whole=$1 ;;
  *) whole=$PWD/$1 ;;
  esac
  shift
  ! is_complete "$@" || exit 0
  # Another may be making them: one whose lock is a minute old has died.
  lock=$whole.lock tries=0
  mkdir -p "$(dirname "$whole")"
  until mkdir "$lock" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || rm -rf "$lock"
    sleep 0.1
  done
  work=$whole.new.$$
  trap 'rm -rf "$work" "$lock"' EXIT
  ! is_complete "$@" || exit 0
  rm -rf "$work"
  mkdir -p "$work"
  cd "$work"
  : >index
  export INDEX=index
  cat >openssl.cnf <<'CONFIG'
oid_section = oids
[oids]
unheardOf = 1.3.6.1.4.1.99999.1
[req]
distinguished_name = name
string_mask = utf8only
[name]
[ca]
default_ca = test
[test]
database = $ENV::INDEX
crlnumber = number
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 3650
default_crl_days = 3650
policy = any
unique_subject = no
email_in_dn = no
[any]
commonName = supplied
CONFIG
}

# is_complete FILE...: made after the scripts and these.
is_complete() {
  for source in "$0" "$(dirname "$0")/authority.sh" "$@"; do
    [ "$whole/complete" -nt "$source" ] || return 1
  done
}

finish() {
  rm -f [0-9A-F]*.pem *.csr extensions *index* number* log openssl.cnf
  : >complete
  cd - >/dev/null
  rm -rf "$whole"
  mv "$work" "$whole"
}

quietly() {
  "$@" >log 2>&1 || { cat log >&2; exit 1; }
}

key() {
  case ${2:-p256} in
  rsa*) quietly openssl genpkey -algorithm RSA -pkeyopt "rsa_keygen_bits:${2#rsa}" -out "$1.key" ;;
  p*)
    kind=${2:-p256}
    quietly openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:P-${kind#p}" -out "$1.key"
    ;;
  *) quietly openssl genpkey -algorithm "$2" -out "$1.key" ;;
  esac
}

subject() {
  case $1 in
  /*) printf '%s' "$1" ;;
  *) printf '/CN=%s' "$1" ;;
  esac
}

self_signed() {
  name=$1 subject=$(subject "$2")
  shift 2
  extensions=
  for extension in "$@"; do
    extensions="$extensions -addext $extension"
  done
  [ -e "$name.key" ] || key "$name"
  # shellcheck disable=SC2086
  quietly openssl req -x509 -new -utf8 -key "$name.key" -subj "$subject" -days 3650 -config openssl.cnf $extensions \
    -out "$name.pem"
}

issued() {
  name=$1 authority=$2 subject=$(subject "$3") extensions=$4
  shift 4
  [ -e "$name.key" ] || key "$name"
  quietly openssl req -new -utf8 -key "$name.key" -subj "$subject" -config openssl.cnf -out "$name.csr"
  printf '%b\n' "$extensions" >extensions
  quietly openssl ca -batch -notext -config openssl.cnf -cert "$authority.pem" -keyfile "$authority.key" \
    -in "$name.csr" -extfile extensions "$@" -out "$name.pem"
}

crl() {
  list=$1 authority=$2 revoked=$3
  shift 3
  INDEX=$list.index
  : >"$INDEX"
  echo 01 >number
  for name in $revoked; do
    quietly openssl ca -config openssl.cnf -cert "$authority.pem" -keyfile "$authority.key" -revoke "$name.pem"
  done
  quietly openssl ca -gencrl -config openssl.cnf -cert "$authority.pem" -keyfile "$authority.key" "$@" -out "$list.crl"
  INDEX=index
}
