#!/usr/bin/env bash
# Writes tptrain.1 to standard output: what --help of the program and of each verb says, as a manual page.
# usage: scripts/man_page.sh PROGRAM
set -euo pipefail
program=$1
help=$("$program" --help)

# Text as it stands: no line is filled, and none begins a request.
verbatim() { sed -e 's/\\/\\e/g' -e "s/^\([.']\)/\\\\\&\1/" -e 's/-/\\-/g'; }

echo '.TH TPTRAIN 1 "" "'"$(head -n 1 <<<"$help" | tr -d '"')"'" "User Commands"'
echo '.SH NAME'
echo 'tptrain \- trains decoder language models with tensor and data parallelism'
echo '.SH DESCRIPTION'
echo '.nf'
tail -n +2 <<<"$help" | verbatim
echo '.fi'
for verb in $(sed -n '/^Verbs/,/^Examples/s/^  \([a-z][a-z]*\)\( .*\)*$/\1/p' <<<"$help"); do
  echo ".SH tptrain $verb"
  echo '.nf'
  "$program" "$verb" --help | verbatim
  echo '.fi'
done
