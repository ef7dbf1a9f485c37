# Reads Debian's blacklist.txt and Mozilla's certdata.txt, writes what is trusted for servers as PEM.
#
# certdata.txt is a list of objects, one attribute a line. A certificate is followed by what it is trusted for, an object
# of its own with the same label. Bytes are octal: `\060\202`.

function decode(text,    bytes, n, i, value, out) {
	n = split(text, bytes, "\\")
	for (i = 2; i <= n; i += 3) {
		value = octal(bytes[i]) * 65536 + octal(bytes[i + 1]) * 256 + octal(bytes[i + 2])
		out = out digit(int(value / 262144)) digit(int(value / 4096)) digit(int(value / 64)) digit(value)
	}
	# The digits beyond the end are padding.
	if (n % 3 == 2) out = substr(out, 1, length(out) - 2) "=="
	if (n % 3 == 0) out = substr(out, 1, length(out) - 1) "="
	return out
}

function octal(text) {
	return substr(text, 1, 1) * 64 + substr(text, 2, 1) * 8 + substr(text, 3, 1)
}

function digit(value) {
	return substr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", value % 64 + 1, 1)
}

FILENAME == "blacklist.txt" {
	if (/^"/) banned[$0] = 1
	next
}

in_bytes {
	if (/^END/) in_bytes = 0
	else if (is_value) der = der $0
	next
}

/ MULTILINE_OCTAL$/ {
	in_bytes = 1
	is_value = $1 == "CKA_VALUE"
	if (is_value) der = ""
	next
}

/^CKA_CLASS / {
	class = $3
}

/^CKA_LABEL / {
	label = substr($0, index($0, "\""))
	if (class == "CKO_CERTIFICATE") certified = label
}

/^CKA_TRUST_SERVER_AUTH / && $3 == "CKT_NSS_TRUSTED_DELEGATOR" && !(label in banned) {
	if (label != certified) {
		print "no certificate before what it is trusted for: " label >"/dev/stderr"
		exit 1
	}
	print "-----BEGIN CERTIFICATE-----"
	for (text = decode(der); text != ""; text = substr(text, 65)) print substr(text, 1, 64)
	print "-----END CERTIFICATE-----"
}
