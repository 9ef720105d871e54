#!/bin/sh
# Makes FOLDER/matrix unless it is there: certificates as the world shows them, good and bad, for the specs of TLS.
# Those of tools/certificates.sh are made first. What says nothing else is for localhost, 127.0.0.1 and ::1, of `ca`.
#
# Usage: tools/certificate-matrix.sh FOLDER
#
#   rsa2048 rsa3072 p384 p521 ed25519     of an authority with such a key: rsa2048-ca, ...
#   self-end self-other                   self-signed: no authority; for other.example
#   endless old                           until the end of 9999; since 1955
#   both-uses                             for clients and servers
#   by-end deep of-clients                of a certificate that may issue none, not so deep, or for clients only (chains)
#   signing critical                      for code; with an extension that nobody knows, and everybody has to heed
#   narrow-good narrow-dns narrow-ip excluded   of an authority for good.example and 10.0.0.0/8, or all but localhost
#   sha1 of-sha1 rsa1024 of-rsa1024 v1    too weak, or of an authority that is (chains); of X.509 version 1
#   of-v1                                 of an authority of version 1: v1-ca
#   revoked of-revoked                    on the list of ca; of an authority on it (chain)
#   client-*                              for clients: expired, future, stranger, server, self, self-ca, leaf, chain
#   odd-*                                 self-signed: names and serial numbers that are seldom seen
#   sans                                  names of all kinds
#
#   ca.crl none.crl expired.crl           of ca: with revoked and revoked-ca; with nothing; past its next update
#   version-1.crl                         of ca, without what version 2 added, as far as this OpenSSL makes such lists
#   intermediate.crl stranger.crl         of these: with leaf; with nothing
#   impostor.crl                          of somebody who calls himself as ca does: with server
set -eu

folder=$1
tools=$(dirname "$0")
"$tools/certificates.sh" "$folder"
# shellcheck source=tools/authority.sh
. "$tools/authority.sh"
begin "$folder/matrix" "$folder/complete"

here=subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
for_clients=extendedKeyUsage=clientAuth
may_issue=basicConstraints=critical,CA:TRUE
long_ago="-startdate 20200101000000Z -enddate 20200102030405Z"

# chained NAME AUTHORITY EXTENSIONS [OPTION...]: issued, with its authority's certificate behind it.
chained() {
  chain=$1 above=$2 lines=$3
  shift 3
  issued "$chain" "$above" localhost "$lines" "$@"
  cat "$above.pem" >>"$chain.pem"
}

for kind in rsa2048 rsa3072 p384 p521 ed25519; do
  key $kind-ca $kind
  self_signed $kind-ca "Authority of $kind" $may_issue
  key $kind $kind
  # Ed25519 has a digest of its own.
  issued $kind $kind-ca localhost "$here" -md default
done

self_signed self-end localhost $here basicConstraints=CA:FALSE
self_signed self-other other.example subjectAltName=DNS:other.example
issued endless ../ca localhost "$here" -enddate 99991231235959Z
issued old ../ca localhost "$here" -startdate 19550102030405Z
issued both-uses ../ca localhost "$here\nextendedKeyUsage=serverAuth,clientAuth"

issued end ../ca "No Authority" basicConstraints=CA:FALSE
chained by-end end "$here"
issued shallow-ca ../ca "Shallow Authority" $may_issue,pathlen:0
issued deep-ca shallow-ca "Deep Authority" $may_issue
chained deep deep-ca "$here"
cat shallow-ca.pem >>deep.pem
issued clients-ca ../ca "Clients' Authority" "$may_issue\n$for_clients"
chained of-clients clients-ca "$here"
issued signing ../ca localhost "$here\nextendedKeyUsage=codeSigning"
issued critical ../ca localhost "$here\n1.3.6.1.4.1.99999.2=critical,ASN1:UTF8:heed"

issued narrow-ca ../ca "Narrow Authority" "$may_issue
nameConstraints=critical,permitted;DNS:good.example,permitted;IP:10.0.0.0/255.0.0.0"
chained narrow-good narrow-ca subjectAltName=DNS:www.good.example,IP:10.1.2.3
chained narrow-dns narrow-ca subjectAltName=DNS:localhost
chained narrow-ip narrow-ca subjectAltName=IP:127.0.0.1
issued excluding-ca ../ca "Excluding Authority" "$may_issue\nnameConstraints=critical,excluded;DNS:localhost"
chained excluded excluding-ca "$here"

# Fedora's OpenSSL does so only if it is told to.
export OPENSSL_ENABLE_SHA1_SIGNATURES=1
issued sha1 ../ca localhost "$here" -md sha1
issued sha1-ca ../ca "Authority by SHA-1" $may_issue -md sha1
chained of-sha1 sha1-ca "$here"
key rsa1024 rsa1024
issued rsa1024 ../ca localhost "$here"
key rsa1024-ca rsa1024
issued rsa1024-ca ../ca "Authority of RSA 1024" $may_issue
chained of-rsa1024 rsa1024-ca "$here"

# version_1 NAME [OPTION...]: newer OpenSSLs make version 3 unless they are told.
version_1() {
  name=$1
  shift
  key "$name"
  set -- req -x509 -new -key "$name.key" -days 3650 -config openssl.cnf -out "$name.pem" "$@"
  openssl "$@" -x509v1 >log 2>&1 || quietly openssl "$@"
}
version_1 v1 -subj /CN=localhost -CA ../ca.pem -CAkey ../ca.key
version_1 v1-ca -subj "/CN=Authority of version 1"
issued of-v1 v1-ca localhost "$here"

issued revoked ../ca localhost "$here"
issued revoked-ca ../ca "Revoked Authority" $may_issue
chained of-revoked revoked-ca "$here"
crl ca ../ca "revoked revoked-ca"
crl none ../ca ""
crl expired ../ca revoked -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102030405Z
crl intermediate ../intermediate ../leaf
crl stranger ../stranger-ca ""
self_signed impostor "Test Authority" $may_issue
crl impostor impostor ../server
sed -i.copy '/^crlnumber/d' openssl.cnf
crl version-1 ../ca revoked
mv openssl.cnf.copy openssl.cnf

# shellcheck disable=SC2086
issued client-expired ../ca client $for_clients $long_ago
issued client-future ../ca client $for_clients -startdate 20900101000000Z -enddate 20910101000000Z
issued client-stranger ../stranger-ca client $for_clients
issued client-server ../ca client "$here\nextendedKeyUsage=serverAuth"
self_signed client-self client basicConstraints=CA:FALSE
self_signed client-self-ca client $may_issue
issued client-leaf ../intermediate client $for_clients
cat client-leaf.pem ../intermediate.pem >client-chain.pem
cp client-leaf.key client-chain.key

# odd NAME SUBJECT [OPTION...]
odd() {
  name=odd-$1 subject=$2
  shift 2
  key "$name"
  quietly openssl req -x509 -new -utf8 -config openssl.cnf -key "$name.key" -subj "$subject" -days 3650 \
    -addext subjectAltName=DNS:localhost "$@" -out "$name.pem"
}
odd special '/CN=a,b\+c"d\\e<f>g;h=i#j'
odd ends '/O=#first/OU= spaces  /CN= '
odd world '/C=DE/ST=Bayern/L=München/O=Grüße & Söhne/OU=日本😀/CN=ü.example/emailAddress=a@b.example'
odd parts '/DC=com/DC=example/O=Multi/UID=u1+CN=multi+serialNumber=5/SN=Sur/GN=Given/title=Dr'
odd control "/CN=$(printf 'one\ntwo\tthree\177')"
odd unheard '/unheardOf=value/CN=unheard'
odd empty /
sed -i.copy 's/^string_mask.*/string_mask = MASK:0x800/' openssl.cnf
odd bmp '/CN=bmp ü日'
mv openssl.cnf.copy openssl.cnf
odd serial-small /CN=small -set_serial 1
# DER puts a zero byte in front of it.
odd serial-high /CN=high -set_serial 0xff0102030405060708090a0b0c0d0e0f10111213
odd serial-zeroes /CN=zeroes -set_serial 0x0a00000000000000000000000000000000000000
names=email:a@b.example,DNS:one.example,URI:https://c.example/,DNS:*.two.example,IP:192.0.2.1
names=$names,IP:2001:db8::a:0:1,RID:1.2.3.4,otherName:1.2.3.4\;UTF8:other,DNS:LOUD.example
issued sans ../ca localhost "subjectAltName=$names"

finish
