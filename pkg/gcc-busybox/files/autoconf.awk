# What kconfig would write to include/autoconf.h: four macros for every option.
# Usage: awk -f autoconf.awk .config Config.in...

FNR == NR {
	if (match($0, /^CONFIG_[A-Z0-9_]*=/))
		value[substr($0, 8, RLENGTH - 8)] = substr($0, RLENGTH + 1)
	next
}

$1 == "config" && NF == 2 && !($2 in seen) {
	seen[$2] = 1
	on = $2 in value
	if (on)
		print "#define CONFIG_" $2, (value[$2] == "y" ? 1 : value[$2])
	print "#define ENABLE_" $2, on
	print "#define IF_" $2 "(...)" (on ? " __VA_ARGS__" : "")
	print "#define IF_NOT_" $2 "(...)" (on ? "" : " __VA_ARGS__")
}

END {
	for (name in value)
		if (!(name in seen)) {
			print "autoconf.awk: no such option: " name >"/dev/stderr"
			exit 1
		}
}
