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

folder=$1
# shellcheck source=tools/authority.sh
. "$(dirname "$0")/authority.sh"
begin "$folder"

here=subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
may_issue=basicConstraints=critical,CA:TRUE
self_signed ca "Test Authority" $may_issue
self_signed stranger-ca "Strange Authority" $may_issue
issued server ca localhost "$here"
key rsa rsa2048
issued rsa ca localhost "$here"
issued expired ca localhost "$here" -startdate 20200101000000Z -enddate 20200102030405Z
issued future ca localhost "$here" -startdate 20900101000000Z -enddate 20910101000000Z
issued other-name ca other.example 'subjectAltName=DNS:other.example,DNS:*.wild.example,IP:192.0.2.7'
issued nameless ca localhost basicConstraints=CA:FALSE
issued client ca client "$here\nextendedKeyUsage=clientAuth"
issued stranger stranger-ca localhost "$here"
issued intermediate ca "Intermediate Authority" $may_issue
issued leaf intermediate localhost "$here"
cat leaf.pem intermediate.pem >chain.pem
cp leaf.key chain.key
self_signed self-signed localhost "$here" $may_issue
self_signed self-expired localhost
mv self-expired.pem self-expired-ca.pem
cp self-expired.key self-expired-ca.key
issued self-expired self-expired-ca localhost "$here" -startdate 20200101000000Z -enddate 20200102030405Z -selfsign

rm -f self-expired-ca.*
finish
