#!/bin/sh
# Print what a recipe's `fetch` has to say of the crates in a Cargo.lock:  scripts/crates.sh <Cargo.lock >>pkg/NAME/fetch
# Their sums are those of the lock file; crates that are not of crates.io have none there, and are left out.
set -eu
awk -F'"' '
	/^name = / { name = $2 }
	/^version = / { version = $2 }
	/^checksum = / {
		print "\nurl: mirror://crates/" name "/" version "/download"
		print "file: " name "-" version ".crate"
		print "sha256: " $2
	}'
